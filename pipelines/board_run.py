"""Filling a board: each run trains one model with one seed in a process of its own and writes one record.

A finished record of equal settings is left alone and a killed training resumes from its checkpoint, so the same command
may be given again at any time. The test cases are read once a run, after the training has ended; trials never read them.
"""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.board_config import BoardConfig
from pipelines.board_folders import BOARDS
from pipelines.board_training import WITH_SIGNALS, Provenance, checkpoint_of, fit_model, imagined_of, load_board, tables_of
from pipelines.child import run_module
from pipelines.run_records import Identity, is_recorded, record_run
from recsys.artifacts.atomic import read_json, write_json
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.baselines import Baseline


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
    model = board.model(name)
    return is_recorded(path, split_hash, lambda config: type(model).parse(config["model"]) == model)


def identity_of(board: BoardConfig, name: str, seed: int, command: str = "board") -> Identity:
    """command: of `recsys`, which runs it. The settings are the model's and the split's, and no path."""
    baseline = board.model(name)
    settings = {"model": baseline.model_dump(mode="json"), "split": board.split.model_dump(mode="json")}
    return Identity(board.dataset, name, baseline.label, seed, settings, f"recsys {command} {board.dataset} --run {name} --seeds {seed + 1}")


def _prepare(baseline: Baseline, dataset: str, name: str, overrides: tuple[str, ...], threads: int) -> None:
    """The vectors of the signals, apart from the training: its memory is not theirs."""
    if baseline.kind in WITH_SIGNALS:
        _child(["prepare", dataset, name, json.dumps(overrides), "", str(threads)])


def _child(arguments: list[str]) -> None:
    run_module("pipelines.board_run", arguments, named=4)


def _run(dataset: str, name: str, seed: int, folder: Path, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    board = BoardConfig.of_dataset(dataset)
    loaded = load_board(board)
    baseline = board.model(name)
    tables = tables_of(board, baseline, loaded.split)
    checkpoint = checkpoint_of(board, baseline, name, loaded.split, seed, tables)
    provenance = Provenance.of(checkpoint, baseline.settings.threads if baseline.kind == "recbole" else threads)
    with fit_model(baseline, name, loaded, seed, checkpoint, tables, imagined_of(board, baseline, name)) as fitted:
        record = record_run(folder, identity_of(board, name, seed), loaded, fitted, provenance)
    path = folder / f"{record.stem}.json"
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
    with fit_model(baseline, name, loaded, 0, checkpoint, tables, imagined_of(board, baseline, name)) as fitted:
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


def main(arguments: list[str]) -> None:
    """run DATASET MODEL SEED FOLDER THREADS, trial DATASET MODEL OVERRIDES JSON THREADS, or prepare DATASET MODEL OVERRIDES "" THREADS."""
    task, dataset, name, choice, place, threads = arguments
    if task == "prepare":
        import torch

        torch.set_num_threads(int(threads))
        board = BoardConfig.of_dataset(dataset)
        baseline = board.trial(name, tuple(json.loads(choice)))
        tables_of(board, baseline, load_board(board).split)
        imagined_of(board, baseline, name)
    elif task == "run":
        _run(dataset, name, int(choice), Path(place), int(threads))
    else:
        _trial(dataset, name, tuple(json.loads(choice)), Path(place), int(threads))


if __name__ == "__main__":
    main(sys.argv[1:])
