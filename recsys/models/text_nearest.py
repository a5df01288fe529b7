"""`TextNearest`: items nearest to the mean of the history, in one text embedding. No training, so cold items count."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from recsys.data.sequences import Sequences
from recsys.errors import NonFiniteError
from recsys.types import BoolArray, FloatArray, IntArray, Queries


class TextNearest:
    """Cosine between an item and the mean of the L2-normalised, centred history vectors.

    values: float (n_items, d), row r is item_num r. A zero row (an item without a vector) is not scorable.
    centre_on: bool (n_items,): the rows whose mean is taken off all; None is every row with a vector. Embeddings of
        language models share one large component, which would drown the differences (Mu and Viswanath, 2018).
    """

    def __init__(self, values: FloatArray, name: str, *, centre_on: BoolArray | None = None) -> None:
        if values.ndim != 2:
            raise ValueError(f"values (n_items, d) are needed, got shape {values.shape}")
        wide = np.asarray(values, dtype=np.float64)
        bad = ~np.isfinite(wide).all(axis=1)
        if bad.any():
            raise NonFiniteError(f"text vectors of {name!r}: {int(bad.sum())} rows hold NaN or infinity, first item_num {int(bad.argmax())}")
        self.name = name
        self._scorable: BoolArray = (wide != 0).any(axis=1)
        averaged = self._scorable if centre_on is None else self._scorable & centre_on
        centred = wide - (wide[averaged].mean(axis=0) if averaged.any() else 0.0)
        centred[~self._scorable] = 0.0
        self._vectors = _normalised(centred).astype(np.float32)
        self._vectors.flags.writeable = False

    @property
    def n_items(self) -> int:
        return len(self._vectors)

    def scorable_items(self) -> BoolArray:
        return self._scorable

    def represent(self, queries: Queries) -> FloatArray:
        """float32 (B, d) of length 1; zero for an empty history."""
        history = queries.histories if isinstance(queries.histories, Sequences) else Sequences.of_rows(queries.histories)
        weights = np.ones(len(history.item_nums), dtype=np.float64)
        # A sum has the direction of the mean, and only the direction counts.
        summed = csr_array((weights, history.item_nums, history.offsets), shape=(len(history), self.n_items)) @ self._vectors.astype(np.float64)
        return _normalised(np.asarray(summed)).astype(np.float32)

    def items(self) -> FloatArray:
        """float32 (n_items, d) of length 1; zero where an item has no vector."""
        return self._vectors

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        scores: FloatArray = self.represent(queries) @ self._vectors[item_nums].T
        return scores


def _normalised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    unit: npt.NDArray[np.float64] = np.divide(values, norms, out=np.zeros_like(values), where=norms > 1e-12)
    return unit
