"""The models of a board by configuration, and how each is fitted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.neighbours_config import NeighboursConfig
from pipelines.signal_config import Signal
from recsys.config import Config
from recsys.data.catalog import ItemCatalog
from recsys.data.split import Split
from recsys.embeddings.table import EmbeddingTable
from recsys.graph.build import GraphConfig, build_graph
from recsys.graph.config import GraphEncoderConfig
from recsys.graph.edges import Edges
from recsys.heads.fusion import FusionConfig, fit_ranker
from recsys.models import recbole
from recsys.models.chance import Chance
from recsys.models.ease import Ease, EaseConfig
from recsys.models.itemknn import ItemKNN, ItemKNNConfig
from recsys.models.last_items import LastItems
from recsys.models.lightgcn import LightGCNConfig, fit_lightgcn
from recsys.models.popularity import Popularity
from recsys.models.text_nearest import TextNearest
from recsys.training.loop import Progress
from recsys.types import Scorer


class PopularityBaseline(Config):
    kind: Literal["popularity"]
    label: str = "popularity"


class ItemKNNBaseline(Config):
    kind: Literal["itemknn"]
    label: str = "ItemKNN"
    settings: ItemKNNConfig = ItemKNNConfig()


class EaseBaseline(Config):
    kind: Literal["ease"]
    label: str = "EASE"
    settings: EaseConfig = EaseConfig()


class LightGCNBaseline(Config):
    kind: Literal["lightgcn"]
    label: str = "LightGCN"
    settings: LightGCNConfig = LightGCNConfig()


class SequentialBaseline(Config):
    """SASRec, gSASRec, eSASRec: the ranker without text tables, by its encoder and its loss."""

    kind: Literal["sequential"]
    label: str
    settings: FusionConfig = FusionConfig()


class FusedBaseline(Config):
    """The ranker with signals of the items beside their IDs."""

    kind: Literal["fused"]
    label: str
    signals: dict[str, Signal]
    """Name -> where its vectors come from."""
    settings: FusionConfig = FusionConfig()


class NearestBaseline(Config):
    """Nearest neighbours of the history in the vectors of one signal; nothing is trained."""

    kind: Literal["nearest"]
    label: str
    signals: dict[str, Signal]
    """One."""
    last: Annotated[int, Field(ge=1)] | None = None
    """Items of the history that are read; null: all."""

    @model_validator(mode="after")
    def _one_signal(self) -> Self:
        if len(self.signals) != 1:
            raise ValueError(f"nearest neighbours need one signal, got {', '.join(self.signals) or 'none'}")
        return self


class GraphBaseline(Config):
    """The vectors of a graph of training alone, behind a dot product."""

    kind: Literal["graph"]
    label: str
    signals: dict[str, Signal] = Field(default_factory=dict)
    """The texts that the graph reads."""
    build: GraphConfig = GraphConfig()
    settings: GraphEncoderConfig = GraphEncoderConfig()
    neighbours: NeighboursConfig | None = Field(default=None, exclude_if=lambda value: value is None)
    """What a language model writes beside thin items; null: nothing."""


class ChanceBaseline(Config):
    """All items alike: with ties by expectation, what chance finds."""

    kind: Literal["chance"]
    label: str = "chance"


class RecBoleBaseline(Config):
    kind: Literal["recbole"]
    label: str
    settings: recbole.RecBoleConfig


AnyBaseline = (
    PopularityBaseline
    | ItemKNNBaseline
    | EaseBaseline
    | LightGCNBaseline
    | SequentialBaseline
    | FusedBaseline
    | NearestBaseline
    | GraphBaseline
    | ChanceBaseline
    | RecBoleBaseline
)
Baseline = Annotated[AnyBaseline, Field(discriminator="kind")]


@dataclass(frozen=True)
class Fitted:
    """curve: one dict an epoch.  seconds: of the training, over all resumed runs.  capped: what ended it early, in words.
    peak_mb: highest memory of the training, in MiB; 0 where the process itself is the measure.  spaces: signal -> space_id of its vectors."""

    scorer: Scorer
    seconds: float
    curve: list[dict[str, float]]
    best_epoch: int = 0
    capped: str | None = None
    parameters: int = 0
    peak_mb: float = 0.0
    spaces: Mapping[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        """Ends the process that a foreign model answers from."""
        if isinstance(self.scorer, recbole.RecBoleScorer):
            self.scorer.close()


def fit(
    baseline: AnyBaseline,
    split: Split,
    *,
    seed: int,
    checkpoint: Path,
    validate: Callable[[Scorer], float],
    progress: Progress,
    tables: Mapping[str, EmbeddingTable] | None = None,
    catalog: ItemCatalog | None = None,
    imagined: Edges | None = None,
) -> Fitted:
    """Fit on `split.train`; whoever stops early does so by `validate`. A killed fit with a checkpoint resumes.

    tables: those of the model's signals.  catalog: of all items, for a graph.  imagined: edges that a graph asked for by `neighbours`.
    """
    started = time.perf_counter()
    match baseline:
        case PopularityBaseline():
            return Fitted(Popularity.fit(split), time.perf_counter() - started, [])
        case ItemKNNBaseline():
            return Fitted(ItemKNN.fit(baseline.settings, split), time.perf_counter() - started, [])
        case EaseBaseline():
            return Fitted(Ease.fit(baseline.settings, split), time.perf_counter() - started, [])
        case SequentialBaseline() | FusedBaseline():
            result = fit_ranker(baseline.settings, split, tables or {}, seed=seed, checkpoint=checkpoint, validate=validate, progress=progress)
            cap = _cap(baseline.settings.training.max_seconds) if result.capped else None
            spaces = result.ranker.spaces
            return Fitted(result.ranker, result.seconds, result.history, result.best_epoch, cap, result.parameters, result.peak_mb, spaces)
        case ChanceBaseline():
            return Fitted(Chance(split.n_items), time.perf_counter() - started, [])
        case NearestBaseline():
            ((name, table),) = (tables or {}).items()
            nearest = TextNearest(table.aligned_to(split.items), name, centre_on=split.item_counts() > 0)
            scorer = nearest if baseline.last is None else LastItems(nearest, baseline.last)
            return Fitted(scorer, time.perf_counter() - started, [], spaces={name: table.space_id})
        case LightGCNBaseline():
            graph = fit_lightgcn(baseline.settings, split, seed=seed, checkpoint=checkpoint, validate=validate, progress=progress)
            cap = _cap(baseline.settings.training.max_seconds) if graph.capped else None
            return Fitted(graph.scorer, graph.seconds, graph.history, graph.best_epoch, cap, graph.parameters, graph.peak_mb)
        case GraphBaseline():
            assert catalog is not None
            return _fit_graph(baseline, split, tables or {}, catalog, imagined, seed=seed, checkpoint=checkpoint, validate=validate, progress=progress)
        case RecBoleBaseline():
            foreign = recbole.fit(baseline.settings, split, seed=seed, checkpoint=checkpoint, progress=progress)
            # The worker judges its epochs on our validation cases by our definition of NDCG@10.
            curve = [{("validation" if key == "ndcg@10" else key): float(value) for key, value in numbers.items()} for numbers in foreign.history]
            cap = _cap(baseline.settings.max_seconds) if foreign.capped else None
            return Fitted(foreign.scorer, foreign.seconds, curve, foreign.best_epoch, cap, foreign.parameters, foreign.peak_mb)


def _fit_graph(
    baseline: GraphBaseline,
    split: Split,
    tables: Mapping[str, EmbeddingTable],
    catalog: ItemCatalog,
    imagined: Edges | None,
    *,
    seed: int,
    checkpoint: Path,
    validate: Callable[[Scorer], float],
    progress: Progress,
) -> Fitted:
    from recsys.graph.leaks import assert_no_graph_leak
    from recsys.graph.link_prediction import fit_graph  # takes seconds to import

    graph = build_graph(baseline.build, split, catalog, tables, imagined=imagined)
    assert_no_graph_leak(split, graph, support=False)
    result = fit_graph(baseline.settings, graph, split, seed=seed, checkpoint=checkpoint, validate=validate, progress=progress)
    cap = _cap(baseline.settings.link.training.max_seconds) if result.capped else None
    spaces = {name: table.space_id for name, table in tables.items()}
    return Fitted(result.model.scorer(), result.seconds, result.history, result.best_epoch, cap, result.parameters, result.peak_mb, spaces)


def _cap(seconds: float | None) -> str | None:
    return None if seconds is None else f"cap of {seconds:g} s"
