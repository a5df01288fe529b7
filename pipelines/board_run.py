"""Filling a board: each run trains one model with one seed in a process of its own and writes one record.

A finished record of equal settings is left alone and a killed training resumes from its checkpoint, so the same command
may be given again at any time. The test cases are read once a run, after the training has ended; trials never read them.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.board_config import BoardConfig
from pipelines.board_folders import BOARDS
from pipelines.board_training import WITH_SIGNALS, Loaded, Provenance, checkpoint_of, fit_model, load_board, tables_of
from recsys.artifacts.atomic import read_json, write_json
from recsys.errors import ArtifactError, ConfigError, RetryableError
from recsys.evaluation.run_record import RunRecord, read_ranks, read_run, write_run
from recsys.training.memory import peak_mb

if TYPE_CHECKING:
    from pipelines.baselines import Baseline, Fitted
    from recsys.data.catalog import ItemCatalog
    from recsys.data.split import Split
    from recsys.evaluation.evaluate import Evaluation
    from recsys.types import IntArray

CUTOFFS = (5, 10, 20)
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
    split_hash = load_board(board).split.digest
    for name in models or board.models:
        for seed in seeds if has_seed(board.model(name)) else (0,):
            path = folder / f"{name}-seed{seed}.json"
            if not force and is_done(path, board, name, split_hash):
                console.print(f"[dim]· {name} seed {seed}: done already[/]")
            else:
                console.print(f"[bold]{name}[/] seed {seed}")
                _prepare(board.model(name), dataset, name, (), threads)
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
            known = f"there are some for: {', '.join(planned)}" if planned else f"none are planned: add `{kind}` to its baselines.yaml (docs/evaluation.md)"
            raise ConfigError(f"no {kind} for {name!r} on the board of {dataset}; {known}")
        for overrides in planned[name]:
            if _is_tried(path, board, name, overrides):
                console.print(f"[dim]· {name} {' '.join(overrides)}: done already[/]")
            else:
                console.print(f"[bold]{name}[/] {' '.join(overrides) or 'as it stands'}")
                _prepare(board.trial(name, overrides), dataset, name, overrides, threads)
                _child(["trial", dataset, name, json.dumps(overrides), str(path), str(threads)])
    return path


def has_seed(baseline: Baseline) -> bool:
    return baseline.kind not in ("popularity", "itemknn", "ease", "nearest", "chance")


def is_done(path: Path, board: BoardConfig, name: str, split_hash: str) -> bool:
    """A readable record with its ranks, of this very split and of equal settings. Settings are compared as they are read: a
    field that was added since, at its default, is no change."""
    if not path.is_file():
        return False
    model = board.model(name)
    try:
        record = read_run(path)
        read_ranks(path)
        return record.split_hash == split_hash and type(model).parse(record.config["model"]) == model
    except (ConfigError, ArtifactError):
        return False


def shown_settings(board: BoardConfig, name: str) -> dict[str, Any]:
    """The settings that a record states: the model's and the split's, and no path."""
    return {"model": board.model(name).model_dump(mode="json"), "split": board.split.model_dump(mode="json")}


def _prepare(baseline: Baseline, dataset: str, name: str, overrides: tuple[str, ...], threads: int) -> None:
    """The vectors of the signals, apart from the training: its memory is not theirs."""
    if baseline.kind in WITH_SIGNALS:
        _child(["prepare", dataset, name, json.dumps(overrides), "", str(threads)])


def _child(arguments: list[str]) -> None:
    """In a process of its own: peak memory belongs to one run, and a crash ends one run."""
    done = subprocess.run([sys.executable, "-m", "pipelines.board_run", *arguments])
    if done.returncode:
        raise RetryableError(f"the run {' '.join(arguments[:4])} ended with exit code {done.returncode}; the same command resumes it")


def _run(dataset: str, name: str, seed: int, folder: Path, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    board = BoardConfig.of_dataset(dataset)
    loaded = load_board(board)
    baseline = board.model(name)
    tables = tables_of(board, baseline, loaded.split)
    checkpoint = checkpoint_of(board, baseline, name, loaded.split, seed, tables)
    provenance = Provenance.of(checkpoint, baseline.settings.threads if baseline.kind == "recbole" else threads)
    with fit_model(baseline, name, loaded, seed, checkpoint, tables) as fitted:
        record, better, tied = _record(board, name, seed, loaded, fitted, provenance)
    path = write_run(folder, record, better, tied)
    Console().print(f"  test recall@10 {record.metrics['recall@10']:.4f}  ndcg@10 {record.metrics['ndcg@10']:.4f}  -> {path}", soft_wrap=True)


def _trial(dataset: str, name: str, overrides: tuple[str, ...], path: Path, threads: int) -> None:
    import torch

    from recsys.evaluation.evaluate import evaluate

    torch.set_num_threads(threads)
    board = BoardConfig.of_dataset(dataset)
    loaded, baseline = load_board(board), board.trial(name, overrides)
    split, tables = loaded.split, tables_of(board, baseline, loaded.split)
    checkpoint = checkpoint_of(board, baseline, name, split, 0, tables)
    provenance = Provenance.of(checkpoint, threads)
    with fit_model(baseline, name, loaded, 0, checkpoint, tables) as fitted:
        validation = evaluate(fitted.scorer, split.validation, ks=(10,), split=split)
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
        "commit": provenance.commit,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        # Two tunings may go on beside each other; what one notes, the other keeps.
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_json(path, [*_trials(path), trial])
    Console().print(f"  validation ndcg@10 {validation.mean('ndcg@10'):.4f}  recall@10 {validation.mean('recall@10'):.4f}  {fitted.seconds:.0f} s")


def _trials(path: Path) -> list[dict[str, Any]]:
    return list(read_json(path)) if path.is_file() else []


def _is_tried(path: Path, board: BoardConfig, name: str, overrides: tuple[str, ...]) -> bool:
    wanted = board.trial(name, overrides)

    def equal(config: Mapping[str, Any]) -> bool:
        try:
            return type(wanted).parse(config["model"]) == wanted and type(board.split).parse(config["split"]) == board.split
        except ConfigError:
            return False

    return any(trial["model"] == name and equal(trial["config"]) for trial in _trials(path))


def _record(board: BoardConfig, name: str, seed: int, loaded: Loaded, fitted: Fitted, provenance: Provenance) -> tuple[RunRecord, IntArray, IntArray]:
    from recsys.evaluation.evaluate import evaluate

    split = loaded.split
    started = time.perf_counter()
    evaluate(fitted.scorer, split.test, ks=(10,), metrics=("ndcg",), lists=False, split=split)
    scoring = time.perf_counter() - started
    test = evaluate(fitted.scorer, split.test, ks=CUTOFFS, split=split)
    validation = evaluate(fitted.scorer, split.validation, ks=(10,), split=split)
    unmasked = evaluate(fitted.scorer, split.test, ks=CUTOFFS, masked=False, split=split)
    record = RunRecord(
        dataset=board.dataset,
        protocol=split.protocol,
        split_hash=split.digest,
        model=name,
        label=board.model(name).label,
        seed=seed,
        config=shown_settings(board, name),
        cases=len(split.test),
        metrics={metric: test.mean(metric) for metric in test.per_user},
        unmasked={metric: unmasked.mean(metric) for metric in unmasked.per_user},
        validation={metric: validation.mean(metric) for metric in validation.per_user},
        slices=_slices(test, split, loaded.catalog),
        beyond=_beyond(test, split, loaded.catalog),
        data=loaded.counts,
        parameters=fitted.parameters,
        spaces=dict(fitted.spaces),
        epochs=len(fitted.curve),
        best_epoch=fitted.best_epoch,
        curve=fitted.curve,
        train_seconds=round(fitted.seconds, 2),
        inference_ms_per_user=round(1000 * scoring / len(split.test), 4),
        peak_rss_mb=round(max(peak_mb(), fitted.peak_mb), 1),
        threads=provenance.threads,
        capped=fitted.capped,
        commit=provenance.commit,
        command=f"recsys board {board.dataset} --run {name} --seeds {seed + 1}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return record, test.better, test.tied


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
    """run DATASET MODEL SEED FOLDER THREADS, trial DATASET MODEL OVERRIDES JSON THREADS, or prepare DATASET MODEL OVERRIDES "" THREADS."""
    task, dataset, name, choice, place, threads = arguments
    if task == "prepare":
        import torch

        torch.set_num_threads(int(threads))
        board = BoardConfig.of_dataset(dataset)
        tables_of(board, board.trial(name, tuple(json.loads(choice))), load_board(board).split)
    elif task == "run":
        _run(dataset, name, int(choice), Path(place), int(threads))
    else:
        _trial(dataset, name, tuple(json.loads(choice)), Path(place), int(threads))


if __name__ == "__main__":
    main(sys.argv[1:])
