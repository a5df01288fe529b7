"""EASE (Steck 2019, arXiv 1905.03375): a linear item-item model in closed form."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.linalg import lapack

from recsys.config import Config
from recsys.data.split import Split
from recsys.errors import NonFiniteError
from recsys.models._item_item import binary_matrix, multiply, scorable_of
from recsys.types import BoolArray, FloatArray, IntArray, Queries

_STRIP = 512


class EaseConfig(Config):
    regularisation: Annotated[float, Field(gt=0)] = 300.0
    """lambda of eq. 1: the ridge penalty."""


class Ease:
    """B = I - P diag(1 / diag P) with P = (X'X + lambda I)^-1 (eq. 8); score = history @ B."""

    def __init__(self, weights: FloatArray, counts: IntArray, *, item_digest: str | None = None) -> None:
        self._weights, self._counts, self.item_digest = weights, counts, item_digest

    @classmethod
    def fit(cls, config: EaseConfig, split: Split) -> Self:
        n_items = len(split.items)
        X = binary_matrix(split.train, n_items)
        gram = (X.T @ X).toarray()
        gram[np.diag_indices(n_items)] += config.regularisation
        diagonal, B = _inverse_in_place(gram)
        B /= -diagonal
        B[np.diag_indices(n_items)] = 0.0
        return cls(B.astype(np.float32, order="C"), split.item_counts(), item_digest=split.items.digest)

    @property
    def n_items(self) -> int:
        return len(self._counts)

    def scorable_items(self) -> BoolArray:
        return scorable_of(self._counts)

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C)."""
        return multiply(queries, self._weights, item_nums, self.n_items)


def _inverse_in_place(gram: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(diagonal (n,), inverse (n, n)) of a symmetric positive definite matrix, in the memory of `gram`.

    float64: the condition number grows with the data. From the Cholesky factor directly (LAPACK potri), n^3 operations where
    solving for the identity takes 2.3 n^3 and a second matrix.
    """
    # The transpose of a C-ordered symmetric matrix is the Fortran-ordered matrix itself: nothing is copied.
    factor, failed = lapack.dpotrf(gram.T, lower=1, overwrite_a=1, clean=0)
    inverse, failed_too = lapack.dpotri(factor, lower=1, overwrite_c=1)
    if failed or failed_too:
        raise NonFiniteError(f"the regularised item-item matrix is not positive definite (LAPACK info {failed}, {failed_too}); raise the regularisation")
    n = len(inverse)
    for start in range(0, n, _STRIP):
        # Only the lower triangle was filled; strips keep the copies small.
        stop = min(start + _STRIP, n)
        inverse[start:stop, stop:] = inverse[stop:, start:stop].T
        corner = inverse[start:stop, start:stop]
        upper = np.triu_indices(stop - start, 1)
        corner[upper] = corner.T[upper]
    return np.diag(inverse).copy(), inverse
