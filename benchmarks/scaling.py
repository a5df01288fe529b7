"""How ingest, split, evaluation and training grow: synthetic data of 1e5 to 1e7 interactions and 1e4 to 1e6 items.

Items are a tenth of the interactions, and so are users; popularity falls like the inverse of the rank. Each point runs in
a process of its own with a cap; what the cap cuts is shown as capped. Peak memory is that of the process during the stage,
what the stages before it left behind included.

Ingest: Parquet to clean interactions. Split: leave-last-out with its hash. Evaluation: 2,000 users over all items from
vectors, d = 64, all metrics at 5, 10 and 20. Training: 20 steps of SASRec (d = 64, two blocks, batches of 128 histories)
and what a training does once: Adam's state, the windows of an epoch, the copies of the best weights. The loss is the full
softmax up to 100,000 items and a softmax over 256 sampled negatives beyond.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import _synthetic
from benchmarks._child import Child, own
from benchmarks._meter import metered
from benchmarks._progress import say
from benchmarks._torch import ready
from benchmarks._vectors import VectorScorer
from benchmarks.scaling_plot import draw
from recsys.data.split import Cases, SplitConfig, make_split
from recsys.data.validation import ValidationConfig, clean
from recsys.evaluation.evaluate import evaluate
from recsys.heads import fitting
from recsys.heads.config import FusionConfig
from recsys.losses import SampledSoftmaxLoss, SoftmaxLoss
from recsys.models.sasrec import SasRecConfig
from recsys.rng import numpy_generator
from recsys.training.config import TrainingConfig

SIZES, SMALL = (100_000, 1_000_000, 10_000_000), (2_000, 20_000)
STAGES = ("ingest", "split", "evaluation", "training")
CAP = 150.0
"""Seconds of a point, all of its stages."""
USERS, STEPS, BATCH, DIM = 2_000, 20, 128, 64
SOFTMAX_UP_TO = 100_000


def run(*, small: bool = False, threads: int = 2, cap: float = CAP) -> dict[str, Any]:
    points: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for n_events in SMALL if small else SIZES:
            path = Path(temporary) / f"{n_events}.parquet"
            sizes = {"n_events": n_events, "n_users": n_events // 10, "n_items": n_events // 10}
            say(f"scaling, {n_events:,} interactions: making them")
            with Child(own("benchmarks.scaling:make", {"path": str(path), **sizes}), cap=cap, threads=threads) as child:
                for _ in child:
                    pass
            with Child(own("benchmarks.scaling:point", {"path": str(path), "threads": threads}), cap=cap, threads=threads) as child:
                for message in child:
                    say(f"scaling, {n_events:,} interactions, {message['stage']}: {message['seconds']} s, peak {message['peak_mb']} MB")
                    points.append({"interactions": n_events, "users": n_events // 10, "items": n_events // 10, **message, "capped": False})
            path.unlink(missing_ok=True)
            done = {point["stage"] for point in points if point["interactions"] == n_events}
            for stage in STAGES:
                if stage not in done:
                    points.append(_capped(n_events, stage, cap))
    return {"threads": threads, "cap_seconds": cap, "points": points, "notes": [" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[1:]]}


def picture(figures: dict[str, Any], path: Path) -> None:
    draw(figures["points"], path)


def _capped(n_events: int, stage: str, cap: float) -> dict[str, Any]:
    return {"interactions": n_events, "users": n_events // 10, "items": n_events // 10, "stage": stage, "seconds": cap, "peak_mb": None, "capped": True}


def make(path: str, n_events: int, n_users: int, n_items: int) -> Iterator[dict[str, Any]]:
    """In a child: the parent stays small."""
    _synthetic.write(Path(path), n_events, n_users, n_items)
    yield {}


def point(path: str, threads: int) -> Iterator[dict[str, Any]]:
    """In the child: one message a stage."""
    ready(threads)
    with metered() as cost:
        source = _synthetic.source(Path(path))
        interactions = clean(source.read_interactions(), None, ValidationConfig()).interactions
    yield {"stage": "ingest", **cost, "what": "all rows"}
    with metered() as cost:
        split = make_split(SplitConfig(), interactions)
    del interactions
    yield {"stage": "split", **cost, "what": "all rows"}
    generator = numpy_generator(0, "benchmarks", "scaling")
    states, items = (generator.standard_normal((rows, DIM), dtype=np.float32) for rows in (len(split.users), split.n_items))
    cases = split.test
    some = Cases(cases.user_nums[:USERS], cases.inputs[:USERS], cases.seen[:USERS], cases.targets[:USERS])
    with metered() as cost:
        evaluate(VectorScorer(states, items), some)
    yield {"stage": "evaluation", **cost, "what": f"{len(some):,} users"}
    del states, items
    batches = fitting.next_item_batches

    def first(*rows: Any, **options: Any) -> Any:
        return itertools.islice(batches(*rows, **options), STEPS)

    loss = SoftmaxLoss() if split.n_items <= SOFTMAX_UP_TO else SampledSoftmaxLoss(negatives=256)
    config = FusionConfig(encoder=SasRecConfig(dim=DIM), loss=loss, training=TrainingConfig(epochs=1, batch_size=BATCH), projection=False)
    # The library's own epoch, cut after so many steps.
    with mock.patch.object(fitting, "next_item_batches", first), metered() as cost:
        fitting.fit_ranker(config, split, {}, seed=0, validate=lambda scorer: 0.0)
    yield {"stage": "training", **cost, "what": f"{STEPS} steps, {loss.kind.replace('_', ' ')}"}
