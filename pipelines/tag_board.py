"""The board of node classification of a data set: each row is computed once a seed; `board.json` and `board.md` are made of what is finished.

Cells stand in `experiments/boards/<dataset>/cells.json`, each with a key of all that can move it, and are written as they are finished:
a killed run resumes by the same command and loses one cell at most. A language model's answers are stored as they come.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pipelines.ledger import code_version
from pipelines.progress import Reporter
from pipelines.tag_config import TagBoardConfig
from pipelines.tag_materials import TagMaterials
from pipelines.tag_rows import Cell, ClassRow, Row, TrialRow, rows_of, trials_of, unpacked
from recsys.artifacts.atomic import read_json, write_bytes, write_json
from recsys.config import digest_of
from recsys.errors import ArtifactError, ConfigError, RetryableError
from recsys.evaluation.tag_board import TagLine, board_document, markdown
from recsys.graph.node_split import split_nodes

VERSION = 1
"""Raised when the same row and data give other figures."""
ROOT = Path(".recsys")


@dataclass
class CellStore:
    """cells: row -> seed in text -> cell.  costs: see `TagMaterials`."""

    path: Path
    cells: dict[str, dict[str, Cell]] = field(default_factory=dict)
    costs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ArtifactError: not a file of cells."""
        if not path.is_file():
            return cls(path)
        try:
            document = read_json(path)
            return cls(path, document["cells"], document["costs"])
        except (ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"{path}: not the cells of a board: {type(error).__name__} {error}; delete it, all is then computed anew") from None

    def get(self, row: str, seed: int, key: str) -> Cell | None:
        cell = self.cells.get(row, {}).get(str(seed))
        return cell if cell is not None and cell["key"] == key else None

    def put(self, row: str, seed: int, cell: Cell) -> None:
        self.cells.setdefault(row, {})[str(seed)] = cell
        self.write()

    def write(self) -> None:
        write_json(self.path, {"cells": self.cells, "costs": self.costs})


def run_board(
    config: TagBoardConfig, reporter: Reporter, folder: Path, *, rows: Sequence[str] = (), tune: bool = False, finished_only: bool = False,
    threads: int = 0, root: Path = ROOT,
) -> dict[str, Any]:  # fmt: skip
    """Compute the rows that `rows` begin (empty: all; with `tune` trials alone), then write the board of all that is finished.

    finished_only: compute nothing.

    Raises:
        ConfigError: no row begins so.  RetryableError: the board is being computed already.
    """
    planned, trials = rows_of(config), trials_of(config)
    wanted: Sequence[Row] = trials if tune else planned
    chosen = [row for row in wanted if not rows or row.name.removeprefix("trial-").startswith(tuple(rows))]
    if not chosen:
        raise ConfigError(f"no row begins with {', '.join(rows) or 'anything'}; there are: {', '.join(row.name for row in wanted)}")
    with _alone(folder):
        store = CellStore.read(folder / "cells.json")
        materials = TagMaterials(config, root.absolute(), reporter, store.costs)
        if not finished_only:
            _fill(chosen, store, materials, reporter, threads)
        lines = [line for row in [*planned, *trials] if (line := _line(row, store, materials)) is not None]
        document = board_document(lines, facts=_facts(config, materials), shots_against=config.shots.against if config.shots else (), costs=store.costs)
        write_json(folder / "board.json", document)
        write_bytes(folder / "board.md", markdown(document).encode())
    return document


def key_of(row: Row, materials: TagMaterials, seed: int) -> str:
    parts = [VERSION, row.GROUP, row.inputs(materials), row.split.model_dump(mode="json"), materials.graph.digest, seed]
    return digest_of([*parts, importlib.metadata.version("torch")])


def _fill(rows: Sequence[Row], store: CellStore, materials: TagMaterials, reporter: Reporter, threads: int) -> None:
    todo = [(row, seed, key) for row in rows for seed in range(row.seeds) if store.get(row.name, seed, key := key_of(row, materials, seed)) is None]
    commit = code_version() if todo else ""
    for number, (row, seed, key) in enumerate(todo, 1):
        started, spent = time.perf_counter(), _seconds(store.costs)
        try:
            cell = row.measure(materials, seed)
        finally:
            store.write()  # what the models cost is told even where a row was not finished
        # What the models took stands among the costs.
        seconds = time.perf_counter() - started - (_seconds(store.costs) - spent)
        store.put(row.name, seed, {**cell, "key": key, "commit": commit, "threads": threads, "seconds": round(max(seconds, 0.0), 2)})
        shown = "  ".join(f"{name} {value.get('test', value['validation']):.4f}" for name, value in cell["values"].items())
        reporter.say(f"[dim]{number}/{len(todo)}[/] {row.name} seed {seed}  {shown}  [dim]{seconds:.1f} s[/]")


def _seconds(costs: dict[str, Any]) -> float:
    return float(sum(cost["seconds"] for cost in costs.values()))


def _line(row: Row, store: CellStore, materials: TagMaterials) -> TagLine | None:
    """None where no seed is finished."""
    found = {seed: cell for seed in range(row.seeds) if (cell := store.get(row.name, seed, key_of(row, materials, seed))) is not None}
    if not found:
        return None
    right = {}
    if not isinstance(row, TrialRow | ClassRow):
        for seed, cell in found.items():
            nodes = split_nodes(row.split, materials.graph, seed).test
            right[seed] = (nodes, {name: unpacked(value["right"], len(nodes)) for name, value in cell["values"].items()})
    return TagLine(row.name, row.GROUP, row.shown, found, right)


def _facts(config: TagBoardConfig, materials: TagMaterials) -> dict[str, Any]:
    graph = materials.graph
    sizes = {}
    for name, split in config.splits.items():
        found = split_nodes(split, graph, 0)
        sizes[name] = [len(found.train), len(found.validation), len(found.test)]
    facts: dict[str, Any] = {
        "dataset": config.dataset,
        "nodes": len(graph),
        "edges": int(graph.edges.shape[1]),
        "texts": int(graph.has_text.sum()),
        "classes": list(config.words),
        "digest": graph.digest,
        "splits": sizes,
        "features": {name: features.label for name, features in config.features.items()},
        "notes": list(config.notes),
        "command": f"recsys tag-board {config.dataset}",
    }
    if config.tape is not None:
        task, ranker = config.explain_task(), config.ranker()
        facts["tape"] = {
            "writer": config.tape.writer.identity(),
            "ranker": ranker.identity() if ranker else None,
            "prompt_version": task.version,
            "max_chars": task.max_chars,
            "features": config.features[config.tape.features].label,
        }
    if config.shots is not None:
        writing = config.writing_task()
        facts["shots"] = {
            "writer": config.shots.writer.identity(),
            "prompt_version": writing.version,
            "samples": writing.samples,
            "features": config.features[config.shots.features].label,
            "validation": config.shots.validation,
            "test": config.shots.test,
        }
    return facts


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "board.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RetryableError(f"{folder}: this board is being computed by another run; wait for it") from None
        yield
