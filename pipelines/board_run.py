"""Filling a board: each run trains one model with one seed in a process of its own and writes one record.

A finished record of equal settings is left alone and a killed training resumes from its checkpoint, so the same command
may be given again at any time. The test cases are read once a run, after the training has ended; trials never read them.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.board_config import BoardConfig
from pipelines.ledger import code_version
from pipelines.progress import RichReporter
from recsys.artifacts.atomic import read_json, write_json
from recsys.config import digest_of
from recsys.errors import ConfigError, RetryableError
from recsys.evaluation.run_record import RunRecord, read_run, write_run

if TYPE_CHECKING:
    from pipelines.baselines import Baseline, Fitted
    from recsys.data.catalog import ItemCatalog
    from recsys.data.split import Split
    from recsys.evaluation.evaluate import Evaluation
    from recsys.types import Scorer

BOARDS = Path("experiments/boards")
STATE = Path(".recsys/boards")
"""Checkpoints; may be deleted when nothing runs."""
CUTOFFS = (5, 10, 20)
CHOSEN_BY = "ndcg@10"
CATEGORIES = 8
"""Largest categories that a record keeps apart."""


def run_models(
    dataset: str, models: Sequence[str], seeds: Sequence[int], console: Console, *, threads: int = 2, folder: Path | None = None, force: bool = False
) -> list[Path]:
    """Run each of `models` (empty: all) with each seed, one after the other. Returns the records' paths.

    Raises:
        ConfigError: an unknown data set or model.  RetryableError: a run was killed; the same command resumes.
    """
    board = BoardConfig.of_dataset(dataset)
    for name in models:
        board.model(name)
    folder = folder or BOARDS / dataset
    records = []
    for name in models or board.models:
        for seed in seeds if _has_seed(board.model(name)) else (0,):
            path = folder / f"{name}-seed{seed}.json"
            if not force and _is_done(path, board, name):
                console.print(f"[dim]· {name} seed {seed}: done already[/]")
            else:
                console.print(f"[bold]{name}[/] seed {seed}")
                _child(["run", dataset, name, str(seed), str(folder), str(threads)])
            records.append(path)
    return records


def tune_models(dataset: str, models: Sequence[str], console: Console, *, threads: int = 2, folder: Path | None = None, study: bool = False) -> Path:
    """Run the trials (or the studies) of each of `models` (empty: all that have any) with seed 0; their validation goes to
    `trials.json` (`studies.json`).

    Raises:
        ConfigError: an unknown data set, or a model without trials.  RetryableError: a run was killed.
    """
    board = BoardConfig.of_dataset(dataset)
    kind, planned = ("studies", board.studies) if study else ("trials", board.trials)
    path = (folder or BOARDS / dataset) / f"{kind}.json"
    for name in models or planned:
        if name not in planned:
            raise ConfigError(f"no {kind} for {name!r} on the board of {dataset}; there are some for: {', '.join(planned) or 'none'}")
        for overrides in planned[name]:
            if _is_tried(path, board, name, overrides):
                console.print(f"[dim]· {name} {' '.join(overrides)}: done already[/]")
            else:
                console.print(f"[bold]{name}[/] {' '.join(overrides) or 'as it stands'}")
                _child(["trial", dataset, name, json.dumps(overrides), str(path), str(threads)])
    return path


def _has_seed(baseline: Baseline) -> bool:
    return baseline.kind not in ("popularity", "itemknn", "ease")


def _is_done(path: Path, board: BoardConfig, name: str) -> bool:
    """Settings are compared as they are read: a field that was added since, at its default, is no change."""
    if not path.is_file():
        return False
    model, split = board.model(name), board.split
    config = read_run(path).config
    try:
        return type(model).parse(config["model"]) == model and type(split).parse(config["split"]) == split
    except ConfigError:
        return False


def _shown(board: BoardConfig, name: str) -> dict[str, Any]:
    """The settings that a record states: the model's and the split's, and no path."""
    return {"model": board.model(name).model_dump(mode="json"), "split": board.split.model_dump(mode="json")}


def _child(arguments: list[str]) -> None:
    """In a process of its own: peak memory belongs to one run, and a crash ends one run."""
    done = subprocess.run([sys.executable, "-m", "pipelines.board_run", *arguments])
    if done.returncode:
        raise RetryableError(f"the run {' '.join(arguments[:4])} ended with exit code {done.returncode}; the same command resumes it")


def _run(dataset: str, name: str, seed: int, folder: Path, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    board = BoardConfig.of_dataset(dataset)
    split, catalog = _load(board)
    baseline = board.model(name)
    with _fit(board, baseline, name, split, seed) as fitted:
        record, better, tied = _record(board, name, seed, split, catalog, fitted, threads)
    path = write_run(folder, record, better, tied)
    Console().print(f"  test recall@10 {record.metrics['recall@10']:.4f}  ndcg@10 {record.metrics['ndcg@10']:.4f}  -> {path}")


def _trial(dataset: str, name: str, overrides: tuple[str, ...], path: Path, threads: int) -> None:
    import torch

    from recsys.evaluation.evaluate import evaluate

    torch.set_num_threads(threads)
    board = BoardConfig.of_dataset(dataset)
    split, _ = _load(board)
    baseline = board.trial(name, overrides)
    with _fit(board, baseline, name, split, 0) as fitted:
        validation = evaluate(fitted.scorer, split.validation, ks=(10,))
    trial = {
        "model": name,
        "overrides": list(overrides),
        "config": {"model": baseline.model_dump(mode="json"), "split": board.split.model_dump(mode="json")},
        "seed": 0,
        "validation": {metric: validation.mean(metric) for metric in ("recall@10", "ndcg@10")},
        "epochs": len(fitted.curve),
        "best_epoch": fitted.best_epoch,
        "train_seconds": round(fitted.seconds, 1),
        "capped": fitted.capped,
        "split_hash": split.digest,
        "commit": code_version(),
    }
    write_json(path, [*_trials(path), trial])
    Console().print(f"  validation ndcg@10 {validation.mean('ndcg@10'):.4f}  recall@10 {validation.mean('recall@10'):.4f}  {fitted.seconds:.0f} s")


def _trials(path: Path) -> list[dict[str, Any]]:
    return list(read_json(path)) if path.is_file() else []


def _is_tried(path: Path, board: BoardConfig, name: str, overrides: tuple[str, ...]) -> bool:
    wanted = board.trial(name, overrides)
    tried = [trial["config"] for trial in _trials(path) if trial["model"] == name]
    return any(type(wanted).parse(c["model"]) == wanted and type(board.split).parse(c["split"]) == board.split for c in tried)


def _load(board: BoardConfig) -> tuple[Split, ItemCatalog]:
    from recsys.data.split import make_split
    from recsys.data.validation import clean

    data = clean(board.data.source.read_interactions(), board.data.source.read_items(), board.data.validation)
    return make_split(board.split, data.interactions), data.catalog


def _fit(board: BoardConfig, baseline: Baseline, name: str, split: Split, seed: int) -> Fitted:
    from pipelines.baselines import fit
    from recsys.evaluation.evaluate import evaluate

    def validate(scorer: Scorer) -> float:
        return evaluate(scorer, split.validation, ks=(10,), metrics=("ndcg",), lists=False).mean(CHOSEN_BY)

    # Keyed by settings: a trial that is chosen is the run of seed 0 already.
    checkpoint = STATE / board.dataset / f"{name}-{digest_of([baseline.model_dump(mode='json'), split.digest])[:12]}-seed{seed}"
    console = Console(stderr=True)
    with RichReporter(console).task(f"{name} seed {seed}", "epochs") as advance:

        def progress(done: int, total: int, numbers: Mapping[str, float]) -> None:
            note = " ".join(f"{k} {v:.4f}" for k, v in numbers.items() if k != "epoch")
            advance(done, total, note)
            if not console.is_terminal:
                # A bar says nothing in a log file.
                console.print(f"  {name} seed {seed} epoch {done}/{total} {note}")

        return fit(baseline, split, seed=seed, checkpoint=checkpoint, validate=validate, progress=progress)


def _record(board: BoardConfig, name: str, seed: int, split: Split, catalog: ItemCatalog, fitted: Fitted, threads: int) -> tuple[RunRecord, Any, Any]:
    from recsys.evaluation.evaluate import evaluate

    started = time.perf_counter()
    evaluate(fitted.scorer, split.test, ks=(10,), metrics=("ndcg",), lists=False)
    scoring = time.perf_counter() - started
    test = evaluate(fitted.scorer, split.test, ks=CUTOFFS)
    validation = evaluate(fitted.scorer, split.validation, ks=(10,))
    unmasked = evaluate(fitted.scorer, split.test, ks=CUTOFFS, masked=False)
    # RecBole works in a process of its own.
    peak = max(_peak_kib(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    record = RunRecord(
        dataset=board.dataset,
        protocol=split.protocol,
        split_hash=split.digest,
        model=name,
        label=board.model(name).label,
        seed=seed,
        config=_shown(board, name),
        cases=len(split.test),
        metrics={metric: test.mean(metric) for metric in test.per_user},
        unmasked={metric: unmasked.mean(metric) for metric in unmasked.per_user},
        validation={metric: validation.mean(metric) for metric in validation.per_user},
        slices=_slices(test, split, catalog),
        beyond=_beyond(test, split, catalog),
        parameters=fitted.parameters,
        epochs=len(fitted.curve),
        best_epoch=fitted.best_epoch,
        curve=fitted.curve,
        train_seconds=round(fitted.seconds, 2),
        inference_ms_per_user=round(1000 * scoring / len(split.test), 4),
        peak_rss_mb=round(peak / 1024, 1),
        threads=threads,
        capped=fitted.capped,
        commit=code_version(),
        command=f"recsys board {board.dataset} --run {name} --seeds {seed + 1}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return record, test.better, test.tied


def _peak_kib() -> int:
    """Of this process. VmHWM where there is one, since `ru_maxrss` of a child begins with its parent's memory."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _slices(test: Evaluation, split: Split, catalog: ItemCatalog) -> dict[str, dict[str, float | None]]:
    """By popularity of the target ("cold", ...), length of the history ("history 6–10") and the largest categories of the
    target ("category Drama")."""
    from recsys.evaluation.slices import category_slices, history_slices, parts_of, popularity_slices

    masks = popularity_slices(test.targets, split.item_counts())
    masks |= {f"history {name}": mask for name, mask in history_slices(split.test.inputs.lengths).items()}
    categories = category_slices(test.targets, catalog.categories()).items()
    masks |= {f"category {name}": mask for name, mask in sorted(categories, key=lambda c: -int(c[1].sum()))[:CATEGORIES]}
    return {name: {"count": part.count, "recall@10": part.mean("recall@10"), "ndcg@10": part.mean("ndcg@10")} for name, part in parts_of(test, masks).items()}


def _beyond(test: Evaluation, split: Split, catalog: ItemCatalog) -> dict[str, float | None]:
    from recsys.evaluation.beyond_accuracy import beyond_accuracy
    from recsys.evaluation.calibration import CategoryShares

    assert test.lists is not None
    shares = CategoryShares(catalog.categories())
    return dict(beyond_accuracy(test.lists, 10, n_candidates=test.n_candidates, histories=split.test.inputs, item_counts=split.item_counts(), shares=shares))


def main(arguments: list[str]) -> None:
    """run DATASET MODEL SEED FOLDER THREADS, or trial DATASET MODEL OVERRIDES JSON THREADS: what `_child` starts."""
    task, dataset, name, choice, place, threads = arguments
    if task == "run":
        _run(dataset, name, int(choice), Path(place), int(threads))
    else:
        _trial(dataset, name, tuple(json.loads(choice)), Path(place), int(threads))


if __name__ == "__main__":
    main(sys.argv[1:])
