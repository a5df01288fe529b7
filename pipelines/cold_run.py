"""Filling the cold board: each run trains one model on a split that holds items out and ranks four kinds of cases with it.

`warm`, `cold`: the target is a known or a new item, all items are ranked. `known`, `new`: the same cases, but known or new items alone
are ranked, of which lists with reserved slots are made. The records lie in `cold/<split>/<kind>/` of the board's folder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pipelines.board_config import BoardConfig, FusionFile
from pipelines.board_folders import BOARDS
from pipelines.board_run import has_seed, identity_of, is_done
from pipelines.board_training import WITH_SIGNALS, Provenance, checkpoint_of, fit_model, imagined_of, load_board, tables_of
from pipelines.child import run_module
from pipelines.cold_config import ColdConfig
from pipelines.run_records import CUTOFFS, write_record
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.data.split import Cases, Split
    from recsys.types import BoolArray

FOLDER = "cold"
KINDS = ("warm", "cold", "known", "new")


def cold_config(dataset: str) -> ColdConfig:
    """Raises ConfigError: the data set has no cold board."""
    file = FusionFile.of_dataset(dataset)
    if file is None or file.cold is None:
        raise ConfigError(f"{dataset}: no cold board; add `cold` to experiments/configs/{dataset}/fusion.yaml (docs/fusion.md)")
    return file.cold


def run_cold(dataset: str, models: Sequence[str], seeds: Sequence[int], console: Console, *, threads: int = 2, folder: Path | None = None) -> None:
    """Run each of `models` (empty: all of the cold board) on each of its splits with each seed; what is done is left alone.

    Raises:
        ConfigError: an unknown data set or model.  RetryableError: a run was killed; the same command resumes.
    """
    config, board = cold_config(dataset), BoardConfig.of_dataset(dataset)
    if unknown := [name for name in models if name not in config.models]:
        raise ConfigError(f"no model {', '.join(unknown)} on the cold board of {dataset}; it has: {', '.join(config.models)}")
    folder = folder or BOARDS / dataset
    for split_name, split_config in config.splits.items():
        on_split = board.model_copy(update={"split": split_config})
        digest = load_board(on_split).split.digest
        for name in models or config.models:
            baseline = board.model(name)
            for seed in seeds if has_seed(baseline) else (0,):
                if all(is_done(_folder(folder, split_name, kind) / f"{name}-seed{seed}.json", on_split, name, digest) for kind in KINDS):
                    console.print(f"[dim]· {name} on {split_name}, seed {seed}: done already[/]")
                    continue
                console.print(f"[bold]{name}[/] on {split_name}, seed {seed}")
                if baseline.kind in WITH_SIGNALS:
                    _child(["prepare", dataset, split_name, name, "0", str(folder), str(threads)])
                _child(["run", dataset, split_name, name, str(seed), str(folder), str(threads)])


def _folder(folder: Path, split_name: str, kind: str) -> Path:
    return folder / FOLDER / split_name / kind


def _child(arguments: list[str]) -> None:
    run_module("pipelines.cold_run", arguments, named=5)


def _cases(split: Split, kind: str) -> tuple[Cases, BoolArray | None]:
    """The cases of a kind and the candidates that are ranked, None for all."""
    return {"warm": (split.test, None), "cold": (split.cold, None), "known": (split.test, ~split.held_out), "new": (split.cold, split.held_out)}[kind]


def _run(dataset: str, split_name: str, name: str, seed: int, folder: Path, threads: int) -> None:
    from recsys.evaluation.evaluate import evaluate

    board = BoardConfig.of_dataset(dataset).model_copy(update={"split": cold_config(dataset).splits[split_name]})
    loaded, baseline = load_board(board), board.model(name)
    split, tables = loaded.split, tables_of(board, baseline, loaded.split)
    checkpoint = checkpoint_of(board, baseline, name, split, seed, tables)
    provenance = Provenance.of(checkpoint, threads)
    identity = identity_of(board, name, seed, "cold-board")
    told = []
    with fit_model(baseline, name, loaded, seed, checkpoint, tables, imagined_of(board, baseline, name)) as fitted:
        for kind in KINDS:
            cases, candidates = _cases(split, kind)
            started = time.perf_counter()
            found = evaluate(fitted.scorer, cases, ks=CUTOFFS, candidates=candidates, lists=False, split=split)
            seconds = time.perf_counter() - started
            target = _folder(folder, split_name, kind)
            write_record(target, identity, loaded, fitted, provenance, found, seconds, f"{split.protocol}, {kind}")
            told.append(f"{kind} recall@10 {found.mean('recall@10'):.4f}")
    Console().print("  " + "  ".join(told), soft_wrap=True)


def main(arguments: list[str]) -> None:
    """prepare or run, DATASET SPLIT MODEL SEED FOLDER THREADS: what `_child` starts."""
    import torch

    task, dataset, split_name, name, seed, folder, threads = arguments
    torch.set_num_threads(int(threads))
    if task == "prepare":
        board = BoardConfig.of_dataset(dataset).model_copy(update={"split": cold_config(dataset).splits[split_name]})
        tables_of(board, board.model(name), load_board(board).split)
        imagined_of(board, board.model(name), name)
    else:
        _run(dataset, split_name, name, int(seed), Path(folder), int(threads))


if __name__ == "__main__":
    main(sys.argv[1:])
