"""Frozen vectors of a signal made ready for its adapter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.errors import DataError, NonFiniteError
from recsys.heads.config import SignalOptions
from recsys.types import BoolArray, FloatArray

_EPSILON = 1e-6


@dataclass(frozen=True)
class SignalTransform:
    """y = scale (x - mean) @ matrix, of x / |x| where `unit`; a matrix of None stands for x itself.

    mean: float32 (d,).  matrix: float32 (d, k).
    """

    mean: Tensor
    matrix: Tensor | None
    unit: bool = False
    scale: float = 1.0

    @property
    def in_width(self) -> int:
        return len(self.mean)

    @property
    def out_width(self) -> int:
        return len(self.mean) if self.matrix is None else self.matrix.shape[1]

    def __call__(self, vectors: FloatArray) -> Tensor:
        """float32 (n, d) -> (n, k). A zero vector, which stands for none, means nothing afterwards either."""
        values = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
        if self.unit:
            values = F.normalize(values, dim=1)
        if self.matrix is not None:
            values = (values - self.mean) @ self.matrix
        return values if self.scale == 1.0 else values * self.scale


def fit_transform(vectors: FloatArray, options: SignalOptions) -> SignalTransform:
    """A transform whose outputs have a norm of about `options.scale` (`none`: times that of the vectors).

    vectors: float (n, d), training items only: nothing of a held-out item enters a normaliser.

    Raises:
        DataError: fewer than two vectors.
    """
    if len(vectors) < 2:
        raise DataError(f"{len(vectors)} training items have a vector of this signal; at least 2 are needed to normalise it")
    if options.transform in ("none", "unit"):
        return SignalTransform(torch.zeros(vectors.shape[1]), None, options.transform == "unit", options.scale)
    values = vectors.astype(np.float64)
    mean = values.mean(axis=0)
    centred = values - mean
    if options.transform == "standardise":
        deviation = centred.std(axis=0)
        kept = deviation > _EPSILON
        matrix = np.diag(np.divide(1.0, deviation, out=np.zeros_like(deviation), where=kept)) / np.sqrt(max(1, kept.sum()))
    else:
        matrix, axes = whitening(centred, options.components)
        matrix = matrix / np.sqrt(max(1, matrix.shape[1]))
        if options.transform == "zca":
            matrix = matrix @ axes.T
    return SignalTransform(torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(matrix.astype(np.float32)), scale=options.scale)


def whitening(centred: npt.NDArray[np.float64], components: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of float64 (n, d) the matrix (d, k) to principal components of variance 1 and their axes (d, k); k: `components` or as many as have variance."""
    variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    variances, axes = variances[::-1], axes[:, ::-1]
    k = min(components, int((variances > max(variances[0], 0.0) * _EPSILON).sum()))
    # The sign of an axis is arbitrary; its largest entry is made positive, so that machines agree.
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    kept = (axes * signs)[:, :k]
    return kept / np.sqrt(variances[:k]), kept


def present(vectors: FloatArray, name: str) -> BoolArray:
    """bool (n,): False where the vector is all zeros, which stands for an item without this signal.

    Raises:
        NonFiniteError: NaN or infinity, named with signal and row.
    """
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise NonFiniteError(f"signal {name!r}: vector of item_num {int(bad.argmax())} is not finite ({int(bad.sum())} such items)")
    return np.asarray((vectors != 0).any(axis=1), dtype=np.bool_)
