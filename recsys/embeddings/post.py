"""Post-processing of vectors, fitted on the items of a split's training part: centring, whitening, PCA, all-but-the-top.

Whitening is the largest known gain for text-only cold items (WhitenRec, ICDE 2024); ZCA keeps the axes, PCA whitening turns them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from pydantic import Field
from safetensors import SafetensorError, safe_open

from recsys.artifacts.atomic import write_bytes
from recsys.config import Config
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import ArtifactError, ConfigError, DataError, SpaceMismatchError
from recsys.types import BoolArray, FloatArray

Kind = Literal["centre", "zca", "pca_whiten", "pca", "all_but_the_top"]
FILE = "post.safetensors"
_NO_VARIANCE = 1e-7
"""Share of the largest eigenvalue below which an axis holds rounding, not variance: float32 vectors have some 7 digits."""


class PostConfig(Config):
    """What is done to the vectors. All of it is part of the embedding space."""

    kind: Kind = "zca"
    """centre: x - mean. pca: on the leading axes. pca_whiten: also to unit variance on each. zca: back on the old axes (Bell and
    Sejnowski 1997). all_but_the_top: centred, without the leading `top` axes (Mu and Viswanath, ICLR 2018)."""
    dim: Annotated[int, Field(ge=1)] | None = None
    """Axes kept by pca, pca_whiten and zca (which keeps its width); null: all that have variance."""
    shrinkage: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of each eigenvalue towards their mean: with few items, small eigenvalues are too small, and whitening blows them up."""
    top: Annotated[int, Field(ge=0)] | None = None
    """Of all_but_the_top; null: d / 100, at least 1."""
    normalise: bool = True
    """To unit length afterwards: an inner product is then a cosine. A zero vector stays zero."""


@dataclass(frozen=True)
class FittedPost:
    """y = (x - mean) @ matrix, then unit length if `normalise`.

    mean: float32 (d,).  matrix: float32 (d, d_out).  base: the space of x.  split_hash: of the split whose training items it was fitted on.
    """

    mean: FloatArray
    matrix: FloatArray
    config: PostConfig
    base: EmbeddingSpace
    split_hash: str

    @property
    def digest(self) -> str:
        """sha256 over the numbers and the option."""
        numbers = np.ascontiguousarray(self.mean).tobytes() + np.ascontiguousarray(self.matrix).tobytes()
        return hashlib.sha256(json.dumps([self.config.kind, self.config.normalise, *self.matrix.shape]).encode() + numbers).hexdigest()

    @property
    def space(self) -> EmbeddingSpace:
        return self.base.model_copy(
            update={
                "dim": int(self.matrix.shape[1]),
                "normalise": self.config.normalise,
                "post": f"{self.config.kind}:{self.digest}",
                "split_hash": self.split_hash,
            }
        )

    def apply(self, vectors: FloatArray) -> FloatArray:
        """float32 (n, d) -> float32 (n, d_out)."""
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise SpaceMismatchError(f"vectors (n, {len(self.mean)}) of space {self.base.space_id} are needed, got shape {vectors.shape}")
        # Row by row the same, whatever the others are: products of float32 differ in the last digit with the number of rows.
        moved = (vectors.astype(np.float64) - self.mean) @ self.matrix.astype(np.float64)
        if self.config.normalise:
            lengths = np.linalg.norm(moved, axis=1, keepdims=True)
            moved = moved / np.where(lengths > 0, lengths, 1)
        return moved.astype(np.float32)

    def apply_to(self, table: EmbeddingTable) -> EmbeddingTable:
        """All items of the table, held-out ones too. Raises SpaceMismatchError: a table of another space."""
        table.require_space(self.base.space_id)
        return EmbeddingTable(self.apply(table.values), table.vocabulary, self.space)

    def save(self, folder: Path) -> None:
        """`post.safetensors`: the numbers, and in its header what they are."""
        facts = {"config": self.config.model_dump_json(), "base": self.base.model_dump_json(), "split_hash": self.split_hash, "digest": self.digest}
        write_bytes(folder / FILE, safetensors.numpy.save({"mean": self.mean, "matrix": np.ascontiguousarray(self.matrix)}, metadata=facts))

    @classmethod
    def load(cls, folder: Path) -> FittedPost:
        """Raises ArtifactError: missing or unreadable, or with other numbers than its digest says."""
        try:
            with safe_open(folder / FILE, framework="numpy") as file:
                facts = file.metadata()
                mean, matrix = file.get_tensor("mean"), file.get_tensor("matrix")
            config = PostConfig.parse(json.loads(facts["config"]), source=FILE)
            fitted = cls(mean, matrix, config, EmbeddingSpace.parse(json.loads(facts["base"]), source=FILE), facts["split_hash"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, ConfigError) as error:
            raise ArtifactError(f"{folder / FILE}: post-processing not readable: {error}") from None
        if fitted.digest != facts["digest"]:
            raise ArtifactError(f"{folder / FILE}: the numbers are not those of its digest, the file was changed or damaged; fit it again")
        return fitted


def fit_post(config: PostConfig, table: EmbeddingTable, training_items: BoolArray, split_hash: str) -> FittedPost:
    """training_items: bool (n,), the items that the split's training part knows; the others are not looked at.

    Raises:
        DataError: fewer than two training items, or all of them equal.
        ConfigError: more axes than the training items have.
        SpaceMismatchError: the space of the table was itself fitted, on another split or by post-processing.
    """
    space = table.space
    if training_items.shape != (len(table),) or training_items.dtype != np.bool_:
        raise ValueError(f"a mask bool ({len(table)},) is needed, got {training_items.dtype} {training_items.shape}")
    if space.post or (space.split_hash and space.split_hash != split_hash):
        raise SpaceMismatchError(
            f"post-processing on split {split_hash[:12]!r} of space {space.space_id}, which holds post-processing {space.post[:20]!r} "
            f"fitted on split {space.split_hash[:12]!r}: start from vectors that are not fitted, or on this split"
        )
    values = table.values[training_items].astype(np.float64)
    if len(values) < 2:
        raise DataError(f"post-processing: {len(values)} training items, at least 2 are needed")
    mean = values.mean(axis=0)
    matrix = _matrix(config, values - mean)
    return FittedPost(mean.astype(np.float32), matrix.astype(np.float32), config, space, split_hash)


def _matrix(config: PostConfig, centred: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """float64 (d, d_out) for float64 (n, d)."""
    width = centred.shape[1]
    if config.kind == "centre":
        return np.eye(width)
    values, axes = _axes(centred)
    if config.kind == "all_but_the_top":
        top = max(1, width // 100) if config.top is None else config.top
        return np.asarray(np.eye(width) - axes[:, :top] @ axes[:, :top].T)
    real = int((values > _NO_VARIANCE * values[0]).sum())
    kept = real if config.dim is None else config.dim
    if kept > real:
        raise ConfigError(f"post-processing: dim {kept} of vectors whose {len(centred)} training items have variance on {real} axes only; use fewer")
    values, axes = values[:kept], axes[:, :kept]
    if config.kind == "pca":
        return axes
    scaled: npt.NDArray[Any] = axes / np.sqrt((1 - config.shrinkage) * values + config.shrinkage * values.mean())
    return scaled if config.kind == "pca_whiten" else np.asarray(scaled @ axes.T)


def _axes(centred: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Eigenvalues (d,) of the covariance, largest first, and the axes as columns (d, d); each points to where its largest entry is positive.

    Raises:
        DataError: no variance at all.
    """
    values, axes = np.linalg.eigh(centred.T @ centred / (len(centred) - 1))
    values, axes = values[::-1].clip(min=0), axes[:, ::-1]
    if not values[0] > 0:
        raise DataError("post-processing: the training items' vectors are all equal")
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return values, axes * signs
