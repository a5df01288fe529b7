"""`run_tape`: one graph network a feature kind of TAPE (He et al., ICLR 2024), fused by the mean of logits and by a learned gate.

Kinds: "text" (the node's own text), "explanation" (what a language model said of it), "prediction" (the labels that it ranked).
Where labels may be learned from, a head's out-of-fold probabilities stand beside a kind's vector; see `with_head`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from recsys.config import Config
from recsys.errors import DataError
from recsys.graph.logit_fusion import Gate, GateConfig, mean_of_logits
from recsys.graph.node_classifier import Classified, NodeClassifierConfig, classify
from recsys.graph.node_features import NodeFeatures, Vectors
from recsys.graph.node_split import NodeSplit
from recsys.graph.out_of_fold import HeadConfig, out_of_fold
from recsys.types import FloatArray, IntArray

MEAN, GATE = "mean", "gate"


class TapeConfig(Config):
    classifier: NodeClassifierConfig = NodeClassifierConfig()
    """Of every kind."""
    gate: GateConfig = GateConfig()


@dataclass(frozen=True)
class Tape:
    """logits: kind, "mean" and "gate" -> float32 (n, C).  shares: kind -> how much the gate listens to it on the average."""

    logits: Mapping[str, FloatArray]
    classified: Mapping[str, Classified]
    shares: Mapping[str, float] = field(default_factory=dict)


def run_tape(
    config: TapeConfig, kinds: Mapping[str, NodeFeatures], edge_index: Tensor, labels: IntArray, split: NodeSplit, n_classes: int, *, seed: int
) -> Tape:
    """Labels of test nodes are not read. The gate is fitted on the validation nodes, which also chose each kind's epoch.

    Raises:
        DataError: no kinds, or one with a name of the fusions; and what `classify` raises.
    """
    if not kinds or kinds.keys() & {MEAN, GATE}:
        raise DataError(f"kinds of features: one or more, none called {MEAN} or {GATE}, got {', '.join(kinds) or 'none'}")
    found = {name: classify(config.classifier, features, edge_index, labels, split, n_classes, seed=seed) for name, features in kinds.items()}
    logits = {name: one.logits for name, one in found.items()}
    return fused(config.gate, logits, found, labels, split)


def fused(config: GateConfig, logits: Mapping[str, FloatArray], found: Mapping[str, Classified], labels: IntArray, split: NodeSplit) -> Tape:
    """Of kinds that were classified already."""
    gate = Gate.fit(config, list(logits.values()), labels, split.validation)
    both = {MEAN: mean_of_logits(list(logits.values())), GATE: gate.apply(list(logits.values()))}
    return Tape({**logits, **both}, found, dict(zip(logits, gate.shares(list(logits.values())), strict=True)))


def with_head(config: HeadConfig, features: Vectors, labels: IntArray, split: NodeSplit, n_classes: int, *, seed: int) -> Vectors:
    """The vectors with a head's out-of-fold probabilities beside them, as long as the vectors are on the average.

    Nodes without a vector (all zero) have no probabilities either.

    Raises:
        DataError: see `out_of_fold`.
    """
    values = features.values
    there = np.asarray(values.any(axis=1))
    told = out_of_fold(config, values, labels, split.train, n_classes, seed=seed) * there[:, None]
    length = float(np.linalg.norm(values[there], axis=1).mean()) if there.any() else 1.0
    return Vectors(np.concatenate([values, told * np.float32(length)], axis=1))
