"""Item-item edges of items whose texts are near each other in one embedding space."""

from __future__ import annotations

from typing import Annotated, Any

import faiss
import numpy as np
from pydantic import Field

from recsys.config import Config
from recsys.errors import NonFiniteError
from recsys.graph.edges import Edges
from recsys.types import BoolArray, FloatArray

EXACT_BELOW = 50_000
"""Vectors up to which all are compared: 50k x 384 take some seconds."""
_QUERIES = 16_384
_PROBES = 16


class TextNeighbourConfig(Config):
    neighbours: Annotated[int, Field(ge=1)] = 10
    """Nearest items that an item keeps of its own."""
    minimum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Cosines that are not above this are no edge."""


def text_neighbour_edges(config: TextNeighbourConfig, values: FloatArray, *, centre_on: BoolArray | None = None, exact_below: int = EXACT_BELOW) -> Edges:
    """Weight of (i, j): the cosine of the centred vectors. In (0, 1].

    values: float32 (n, d), row r is item r; a zero row (an item without text) has no edge.
    centre_on: see `centred`. Each item's nearest `neighbours`, in both directions; beyond `exact_below` vectors they are
    looked for in the nearest cells of an inverted file (Johnson et al., 2019), and a few per cent are missed.

    Raises:
        NonFiniteError: NaN or infinity.
    """
    vectors = centred(values, centre_on)
    rows = np.flatnonzero((vectors != 0).any(axis=1))
    vectors = np.ascontiguousarray(vectors[rows])
    if len(rows) < 2:
        return Edges.none()
    k = min(config.neighbours + 1, len(rows))  # its own vector is found too
    index = _index(vectors, exact_below)
    sources, targets, weights = [], [], []
    for start in range(0, len(rows), _QUERIES):
        scores, found = index.search(vectors[start : start + _QUERIES], k)
        own = np.arange(start, start + len(found))[:, None]
        # Twins may push an item's own vector off its list, which then has one neighbour too many.
        fine = (found >= 0) & (found != own) & (scores > max(config.minimum, 1e-6))
        fine &= np.cumsum(fine, axis=1) <= config.neighbours
        sources.append(np.broadcast_to(own, found.shape)[fine])
        targets.append(found[fine])
        weights.append(np.minimum(scores[fine], 1.0))
    return Edges(rows[np.concatenate(sources)], rows[np.concatenate(targets)], np.concatenate(weights)).both_ways(len(values))


def nearest_edges(config: TextNeighbourConfig, items: FloatArray, new: FloatArray) -> Edges:
    """From each new row's nearest items to it: sources are rows of `items`, targets rows of `new`; both float32 (., d), `centred` together.

    What an item that comes later is linked by, with weights as in `text_neighbour_edges`; all are compared.
    """
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(np.ascontiguousarray(items))
    scores, found = index.search(np.ascontiguousarray(new), min(config.neighbours, len(items)))
    fine = (found >= 0) & (scores > max(config.minimum, 1e-6))
    targets = np.broadcast_to(np.arange(len(new), dtype=np.int64)[:, None], found.shape)
    return Edges(found[fine].astype(np.int64), targets[fine], np.minimum(scores[fine], 1.0))


def centred(values: FloatArray, centre_on: BoolArray | None = None) -> FloatArray:
    """float32 (n, d): less the mean of the rows `centre_on` (None: of all with a vector), then of length 1; zero rows stay zero.

    Vectors of language models share one large component that would drown the differences (Mu and Viswanath, 2018).
    """
    present = (values != 0).any(axis=1)
    if not np.isfinite(values).all():
        raise NonFiniteError(f"text vectors: NaN or infinity in row {int((~np.isfinite(values).all(axis=1)).argmax())}")
    averaged = present if centre_on is None else present & centre_on
    mean = values[averaged].mean(axis=0, dtype=np.float64).astype(np.float32) if averaged.any() else np.float32(0.0)
    out: FloatArray = np.where(present[:, None], values - mean, np.float32(0.0))
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    np.divide(out, norms, out=out, where=norms > 1e-6)
    out[norms[:, 0] <= 1e-6] = 0.0
    return out


def _index(vectors: FloatArray, exact_below: int) -> Any:
    n, dim = vectors.shape
    if n < exact_below:
        index: Any = faiss.IndexFlatIP(dim)
    else:
        cells = int(2 * np.sqrt(n))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.max_points_per_centroid = 64
        index.nprobe = min(_PROBES, cells)
        index.train(vectors)
    index.add(vectors)
    return index
