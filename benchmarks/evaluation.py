"""Full evaluation from vectors at the size of Amazon Beauty: 22,363 users, 12,101 items, d = 64, seen items masked.

Each in a process of its own; loading the vectors, the histories and the library is not counted, except in the peak memory,
which is that of the whole process. The values at 10 must agree to 1e-4, or the benchmark fails.

Ours: products, masking, exact places of the targets, first 20 items and coverage, then six metrics at 5, 10 and 20.

RecBole: `Trainer.evaluate` of a BPR model that was given the vectors: its loader, full sort, collector, and its evaluator
with recall, ndcg, mrr, hit, map and precision at 10. Its `eval_batch_size` counts (user, item) pairs: the default of 4096
is one user at a time here, so a setting of 256 users at a time stands beside it.

RecTools: the first 10 of each of its two rankers, seen items filtered, a table of recommendations with outside ids, and
`calc_metrics` with Recall, NDCG, MRR, HitRate, MAP and Precision at 10.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _synthetic
from benchmarks._child import PEERS, Child, own, peer
from benchmarks._data import real, split_of
from benchmarks._meter import metered, peak_mb
from benchmarks._progress import say
from benchmarks._vectors import VectorScorer
from recsys.data.sequences import Sequences
from recsys.data.split import Cases
from recsys.evaluation.evaluate import evaluate
from recsys.rng import numpy_generator

BEAUTY = {"n_events": 198_502, "n_users": 22_363, "n_items": 12_101, "least": 5}
SMALL = {"n_events": 4_000, "n_users": 400, "n_items": 300, "least": 5}
DIM, SIGNAL = 64, 0.45
"""The states lean so far towards the target that NDCG@10 is neither 0 nor 1."""
CAP = 100.0
AGREE = 1e-4
METRICS = ("recall", "ndcg", "mrr", "hit", "map", "precision")
ROUNDS = 3


def run(*, small: bool = False, threads: int = 2) -> dict[str, Any]:
    beauty = None if small else real("amazon_beauty")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if beauty is None:
            _synthetic.write(folder / "events.parquet", **(SMALL if small else BEAUTY))
            beauty = _synthetic.source(folder / "events.parquet")
        n_users, n_items = prepare(beauty, folder)
        rows: list[dict[str, Any]] = []
        settings = {"folder": str(folder), "threads": threads}
        commands = {"ours": own("benchmarks.evaluation:ours", settings)}
        for users in (256, None):
            name = f"RecBole, {f'{users} users' if users else 'its default of 1 user'} at a time"
            commands[name] = own("benchmarks._recbole_evaluation:evaluate", settings | {"users": users})
        if PEERS.is_file():
            for ranker in ("TorchRanker", "ImplicitRanker"):
                commands[f"RecTools, {ranker}"] = peer("_rectools_evaluation.py", settings | {"ranker": ranker})
        metrics: dict[str, dict[str, float]] = {}
        for name, command in commands.items():
            with Child(command, cap=CAP, threads=threads) as child:
                found = list(child)
            if found:
                # Ours is short enough for rounds; of each, the best counts.
                metrics[name] = found[-1]["metrics"]
                rows.append({"by": name, "seconds": min(one["seconds"] for one in found), "peak_mb": found[-1]["peak_mb"]})
            else:
                rows.append({"by": name, "seconds": f"over the cap of {CAP:g} s", "peak_mb": None})
            say(f"evaluation, {name}: {rows[-1]['seconds']} s")
    ours = rows[0]
    for row in rows:
        row["times_ours"] = round(row["seconds"] / ours["seconds"], 1) if isinstance(row["seconds"], float) else None
        row |= {f"{metric}@10": None if row["by"] not in metrics else round(metrics[row["by"]][metric], 6) for metric in METRICS}
    require_agreement(metrics)
    return {
        "users": n_users,
        "items": n_items,
        "data": "synthetic" if small or real("amazon_beauty") is None else "amazon_beauty",
        "threads": threads,
        "evaluations": rows,
        "largest_difference": max((abs(values[m] - metrics["ours"][m]) for values in metrics.values() for m in METRICS), default=0.0),
        "notes": [" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[1:]],
    }


def require_agreement(metrics: dict[str, dict[str, float]]) -> None:
    """Raises AssertionError: a peer's value of a metric is not ours; names both."""
    for name, values in metrics.items():
        for metric in METRICS:
            if abs(values[metric] - metrics["ours"][metric]) > AGREE:
                raise AssertionError(f"{metric}@10: {name} says {values[metric]:.6f}, ours is {metrics['ours'][metric]:.6f}; they must agree to {AGREE}")


def prepare(source: Any, folder: Path) -> tuple[int, int]:
    """Writes vectors and test cases; returns (users evaluated, items)."""
    split = split_of(source)
    cases = split.test
    generator = numpy_generator(0, "benchmarks", "vectors")
    items = generator.normal(size=(split.n_items, DIM)).astype(np.float32) / np.float32(DIM**0.5)
    noise = generator.normal(size=(len(cases), DIM)).astype(np.float32) / np.float32(DIM**0.5)
    arrays = {"items": items, "states": np.float32(SIGNAL) * items[cases.targets] + noise, "targets": cases.targets}
    arrays |= {"seen_offsets": cases.seen.offsets, "seen_items": cases.seen.item_nums}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    return len(cases), split.n_items


def ours(folder: str, threads: int) -> Iterator[dict[str, Any]]:
    """In the child."""
    arrays = {name: np.load(Path(folder) / f"{name}.npy", allow_pickle=False) for name in ("items", "states", "targets", "seen_offsets", "seen_items")}
    seen = Sequences(arrays["seen_offsets"], arrays["seen_items"])
    cases = Cases(np.arange(len(arrays["targets"])), seen, seen, arrays["targets"])
    scorer = VectorScorer(arrays["states"], arrays["items"])
    loading = peak_mb()
    highest = loading
    for _ in range(ROUNDS):
        with metered() as cost:
            found = evaluate(scorer, cases)
        highest = max(highest, cost["peak_mb"])
        yield {"seconds": cost["seconds"], "peak_mb": highest, "metrics": {metric: found.mean(f"{metric}@10") for metric in METRICS}}
