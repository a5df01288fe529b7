"""What the runs of a board begin with: the data, the vectors of the signals, and one training that resumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console

from pipelines.board_config import BoardConfig
from pipelines.board_folders import STATE
from pipelines.ledger import code_version
from pipelines.progress import RichReporter, epochs_told
from recsys.artifacts.atomic import read_json, write_json
from recsys.config import digest_of

if TYPE_CHECKING:
    from pipelines.baselines import Baseline, Fitted
    from pipelines.signal_tables import Signals, SignalTables
    from recsys.data.catalog import ItemCatalog
    from recsys.data.split import Split
    from recsys.embeddings.table import EmbeddingTable
    from recsys.graph.edges import Edges
    from recsys.types import Scorer

CHOSEN_BY = "ndcg@10"
WITH_SIGNALS = ("fused", "nearest", "graph")
"""Kinds of models that read vectors of the items."""


@dataclass(frozen=True)
class Loaded:
    """counts: what ingest and split noticed, by reason."""

    split: Split
    catalog: ItemCatalog
    counts: dict[str, int]


def load_board(board: BoardConfig) -> Loaded:
    from recsys.data.leaks import assert_sound_split
    from recsys.data.split import make_split
    from recsys.data.validation import clean

    data = clean(board.data.source.read_interactions(), board.data.source.read_items(), board.data.validation)
    split = make_split(board.split, data.interactions)
    assert_sound_split(split, what=f"the split of {board.dataset}")
    quarantined = {f"quarantined, {reason}": count for reason, count in data.quarantine_counts().items()}
    return Loaded(split, data.catalog, {**quarantined, **data.notes, **split.counts})


@dataclass(frozen=True)
class Provenance:
    """Of a training, which may be older than the record: a checkpoint that is found finished is not trained again."""

    commit: str
    threads: int

    @classmethod
    def of(cls, checkpoint: Path, threads: int) -> Self:
        path = checkpoint / "provenance.json"
        if not path.is_file():
            checkpoint.mkdir(parents=True, exist_ok=True)
            write_json(path, {"commit": code_version(), "threads": threads})
        return cls(**read_json(path))


def checkpoint_of(board: BoardConfig, baseline: Baseline, name: str, split: Split, seed: int, tables: Mapping[str, EmbeddingTable]) -> Path:
    """Keyed by settings: a trial that is chosen is the run of seed 0 already."""
    parts = [baseline.model_dump(mode="json"), split.digest, *([{name: table.space_id for name, table in tables.items()}] if tables else [])]
    return STATE / board.dataset / f"{name}-{digest_of(parts)[:12]}-seed{seed}"


def tables_of(board: BoardConfig, baseline: Baseline, split: Split) -> dict[str, EmbeddingTable]:
    return signal_tables(board, baseline.signals, split) if baseline.kind in WITH_SIGNALS else {}


def imagined_of(board: BoardConfig, baseline: Baseline, name: str) -> Edges | None:
    """What a language model wrote beside the thin items, where the model is a graph that asks for it; made where it is missing."""
    return _maker(board).imagined(name, baseline.neighbours) if baseline.kind == "graph" and baseline.neighbours is not None else None


def signal_tables(board: BoardConfig, signals: Signals, split: Split) -> dict[str, EmbeddingTable]:
    """Signal -> vectors of the items of `split`, made where they are missing."""
    return _maker(board).make(signals, split)


def _maker(board: BoardConfig) -> SignalTables:
    from pipelines.signal_tables import SignalTables

    return SignalTables(board.signal_data or board.data, board.split, RichReporter(Console(stderr=True)), limits=board.limits, images=board.images)


def fit_model(
    baseline: Baseline, name: str, loaded: Loaded, seed: int, checkpoint: Path, tables: Mapping[str, EmbeddingTable], imagined: Edges | None = None
) -> Fitted:
    from pipelines.baselines import fit
    from recsys.evaluation.evaluate import evaluate

    split = loaded.split

    def validate(scorer: Scorer) -> float:
        return evaluate(scorer, split.validation, ks=(10,), metrics=("ndcg",), lists=False, split=split).mean(CHOSEN_BY)

    with epochs_told(f"{name} seed {seed}") as progress:
        return fit(
            baseline, split, seed=seed, checkpoint=checkpoint, validate=validate, progress=progress, tables=tables, catalog=loaded.catalog, imagined=imagined
        )
