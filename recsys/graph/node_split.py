"""`NodeSplit`: which nodes a classifier learns from, is stopped by and is judged on. Nodes without a text or a class are in no part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from recsys.config import Config, digest_of
from recsys.errors import DataError
from recsys.graph.text_graph import UNKNOWN, TextGraph
from recsys.rng import numpy_generator
from recsys.types import IntArray


class PublicSplit(Config):
    """The split that the data states; where it states none, the protocol of Planetoid (Yang et al., ICML 2016) by seed."""

    kind: Literal["public"] = "public"
    per_class: Annotated[int, Field(ge=1)] = 20
    validation: Annotated[int, Field(ge=1)] = 500
    test: Annotated[int, Field(ge=1)] = 1000


class ShareSplit(Config):
    """Shares of all nodes, drawn by seed, as TAPE draws them on Cora: the rest is test."""

    kind: Literal["share"] = "share"
    train: Annotated[float, Field(gt=0, lt=1)] = 0.6
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2


class ShotSplit(Config):
    """k nodes a class to learn from (LLM4NG). By one seed the k nodes are among the k + 1, and validation and test are the same for every k."""

    kind: Literal["shot"] = "shot"
    k: Annotated[int, Field(ge=1)]
    most: Annotated[int, Field(ge=1)] = 20
    """Nodes a class that validation and test leave alone, so that they do not depend on k."""
    validation: Annotated[int, Field(ge=1)] = 500
    test: Annotated[int, Field(ge=1)] = 1000


NodeSplitConfig = Annotated[PublicSplit | ShareSplit | ShotSplit, Field(discriminator="kind")]


@dataclass(frozen=True)
class NodeSplit:
    """int64 arrays of node numbers, ascending, disjoint, none of them empty."""

    train: IntArray
    validation: IntArray
    test: IntArray

    def __post_init__(self) -> None:
        parts = (self.train, self.validation, self.test)
        if any(not len(part) or part.dtype != np.int64 or (np.diff(part) <= 0).any() for part in parts):
            raise DataError(f"a split of nodes has three parts of ascending int64 node numbers, got {[len(part) for part in parts]} nodes")
        if len(np.unique(np.concatenate(parts))) != sum(map(len, parts)):
            raise DataError("a split of nodes: one node stands in two parts")

    @property
    def digest(self) -> str:
        return digest_of([self.train.tolist(), self.validation.tolist(), self.test.tolist()])


def split_nodes(config: PublicSplit | ShareSplit | ShotSplit, graph: TextGraph, seed: int) -> NodeSplit:
    """Raises DataError: fewer nodes than the protocol asks for."""
    usable = graph.has_text & (graph.labels != UNKNOWN)
    if isinstance(config, PublicSplit) and graph.parts is not None:
        train, validation, test = (np.flatnonzero(usable & (graph.parts == part)) for part in range(3))
        return NodeSplit(train, validation, test)
    order = numpy_generator(seed, "nodes").permutation(np.flatnonzero(usable))
    if isinstance(config, ShareSplit):
        first, second = (round(share * len(order)) for share in (config.train, config.train + config.validation))
        return NodeSplit(np.sort(order[:first]), np.sort(order[first:second]), np.sort(order[second:]))
    k, most = (config.k, max(config.k, config.most)) if isinstance(config, ShotSplit) else (config.per_class, config.per_class)
    of_class = [order[graph.labels[order] == label] for label in range(graph.n_classes)]
    if short := [graph.classes[label] for label, nodes in enumerate(of_class) if len(nodes) < k]:
        raise DataError(f"{graph.name}: {k} nodes a class are needed, {short[0]!r} has fewer with a text")
    rest = order[~np.isin(order, np.concatenate([nodes[:most] for nodes in of_class]))]
    if len(rest) < config.validation + config.test:
        raise DataError(f"{graph.name}: {config.validation} + {config.test} nodes to judge by are needed, {len(rest)} are left; lower validation and test")
    train = np.concatenate([nodes[:k] for nodes in of_class])
    return NodeSplit(np.sort(train), np.sort(rest[: config.validation]), np.sort(rest[config.validation : config.validation + config.test]))
