"""Which generated texts become nodes: near their own class, within the field, and not what is there already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from recsys.config import Config
from recsys.errors import DataError
from recsys.graph.text_neighbours import centred
from recsys.types import FloatArray, IntArray

OFF_DOMAIN, OTHER_CLASS, DUPLICATE = "off domain", "nearer to another class", "duplicate"


class SampleFilterConfig(Config):
    domain_share: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """A text that lies farther from the middle of the real texts than all but this share of them is off the field."""
    margin: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """How much nearer, in cosine, a text must be to its own class than to any other."""
    duplicate: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Cosine from which a text is the same as a real one, or as an earlier sample."""


@dataclass(frozen=True)
class Filtered:
    """kept: int64, ascending rows of the samples.  dropped: reason -> count; a row counts at the first reason that it meets."""

    kept: IntArray
    dropped: dict[str, int]


def filter_samples(config: SampleFilterConfig, samples: FloatArray, labels: IntArray, prototypes: FloatArray, real: FloatArray) -> Filtered:
    """samples: float32 (m, d).  labels: int64 (m,).  prototypes: float32 (C, d), a vector a class: of its name, or the mean of labelled
    nodes.  real: float32 (n, d) of the graph's nodes, zero rows where there is no text; no label of theirs is read. One space for all.

    Classes are compared after the real texts' mean is taken away, which all texts of a field share.

    Raises:
        DataError: no real text.
    """
    real = real[real.any(axis=1)]
    if not len(real):
        raise DataError("generated texts are compared with real ones, of which there are none")
    middle = real.mean(axis=0)
    middle /= max(float(np.linalg.norm(middle)), 1e-12)
    bound = np.quantile(_unit(real) @ middle, config.domain_share)
    unit = _unit(samples)
    off = unit @ middle < bound
    together = centred(np.concatenate([real, samples, prototypes]).astype(np.float32), np.arange(len(real) + len(samples) + len(prototypes)) < len(real))
    nearness = together[len(real) : len(real) + len(samples)] @ together[len(real) + len(samples) :].T
    own = nearness[np.arange(len(samples)), labels]
    nearness[np.arange(len(samples)), labels] = -np.inf
    other = own - nearness.max(axis=1, initial=-np.inf) < config.margin
    twin = (unit @ _unit(real).T).max(axis=1, initial=-1) >= config.duplicate
    kept: list[int] = []
    dropped = dict.fromkeys((OFF_DOMAIN, OTHER_CLASS, DUPLICATE), 0)
    for row in range(len(samples)):
        if off[row]:
            dropped[OFF_DOMAIN] += 1
        elif other[row]:
            dropped[OTHER_CLASS] += 1
        elif twin[row] or (kept and float((unit[kept] @ unit[row]).max()) >= config.duplicate):
            dropped[DUPLICATE] += 1
        else:
            kept.append(row)
    return Filtered(np.array(kept, dtype=np.int64), {reason: count for reason, count in dropped.items() if count})


def class_prototypes(names: FloatArray, values: FloatArray, labels: IntArray, train: IntArray) -> FloatArray:
    """float32 (C, d), unit length: the mean of a class's name and its labelled nodes, each of length 1.

    names: float32 (C, d).  values: float32 (n, d).  labels: int64 (n,), read at `train` alone.
    """
    sums = _unit(names).copy()
    np.add.at(sums, labels[train], _unit(values[train]))
    return _unit(sums)


def _unit(values: FloatArray) -> FloatArray:
    found: FloatArray = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return found
