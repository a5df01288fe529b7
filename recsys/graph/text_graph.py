"""`TextGraph`: a text-attributed graph with classes, as node classification knows it (TAPE, He et al., ICLR 2024; LLM4NG, Yu et al., AAAI 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.config import digest_of
from recsys.errors import DataError
from recsys.types import BoolArray, IntArray

PARTS = ("train", "validation", "test")
_TOLD = {"train": 0, "val": 1, "validation": 1, "test": 2, "none": -1}
UNKNOWN = -1
"""Label of a node whose class nobody stated, and part of a node in none."""


@dataclass(frozen=True)
class TextGraph:
    """Row r of everything is node r.

    texts: "" where there is none that can be trusted.  labels: int64 (n,), row of `classes`, or `UNKNOWN`.
    edges: int64 (2, E), each undirected edge once, source < target, in ascending order.  parts: int64 (n,), row of `PARTS` or
    `UNKNOWN`, of the split that the data states; None: it states none.

    Raises:
        DataError: arrays that do not fit together, a label without a class, a self-loop, or an edge that stands twice.
    """

    name: str
    texts: tuple[str, ...]
    labels: IntArray
    classes: tuple[str, ...]
    edges: IntArray
    parts: IntArray | None = None

    def __post_init__(self) -> None:
        n = len(self.texts)
        arrays = {"labels": (self.labels, (n,)), "edges": (self.edges, (2, self.edges.shape[-1])), "parts": (self.parts, (n,))}
        for name, (array, shape) in arrays.items():
            if array is not None and (array.shape != shape or array.dtype != np.int64):
                raise DataError(f"{self.name}: {name} is int64 {shape}, got {array.dtype} {array.shape}")
            if array is not None:
                view = array.view()
                view.flags.writeable = False
                object.__setattr__(self, name, view)
        if len(self.labels) and not (self.labels.min() >= UNKNOWN and self.labels.max() < len(self.classes)):
            raise DataError(f"{self.name}: labels {self.labels.min()} to {self.labels.max()}, the {len(self.classes)} classes are 0 to {len(self.classes) - 1}")
        if len(set(self.classes)) != len(self.classes):
            raise DataError(f"{self.name}: two classes have one name: {', '.join(self.classes)}")
        sources, targets = self.edges
        if self.edges.size and not (sources.min() >= 0 and targets.max() < n and (sources < targets).all() and (np.diff(sources * n + targets) > 0).all()):
            raise DataError(f"{self.name}: edges are distinct pairs source < target of the nodes 0 to {n - 1}, in ascending order; use TextGraph.undirected")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """`nodes.parquet` (node_id = 0..n-1, title and abstract, or text; label, label_name; where there are any split, text_certain)
        and `edges.parquet` (src, dst). Where text_certain is false the node keeps its place and its edges, without a text.

        Raises:
            DataError: missing files or columns, rows out of order, labels that contradict their names.
        """
        nodes, pairs = _table(folder / "nodes.parquet", ("node_id", "label", "label_name")), _table(folder / "edges.parquet", ("src", "dst"))
        if nodes["node_id"].to_list() != list(range(len(nodes))):
            raise DataError(f"{folder / 'nodes.parquet'}: node_id must be 0 to {len(nodes) - 1}, in this order")
        fields = [name for name in ("title", "abstract", "text") if name in nodes.columns]
        if not fields:
            raise DataError(f"{folder / 'nodes.parquet'}: no column title, abstract or text; it has: {', '.join(nodes.columns)}")
        certain = nodes["text_certain"].to_list() if "text_certain" in nodes.columns else [True] * len(nodes)
        rows = nodes.select(pl.col(fields).fill_null("")).rows()
        texts = tuple(" ".join(part.strip() for part in row if part.strip()) if sure else "" for row, sure in zip(rows, certain, strict=True))
        named = nodes.select("label", "label_name").unique().sort("label")
        if named["label"].to_list() != list(range(len(named))):
            raise DataError(f"{folder / 'nodes.parquet'}: each label needs one name, from 0 on, got {named.rows()[:5]}")
        parts = None
        if "split" in nodes.columns:
            parts = nodes["split"].replace_strict(_TOLD, default=None, return_dtype=pl.Int64)
            if parts.null_count():
                raise DataError(f"{folder / 'nodes.parquet'}: split is one of {', '.join(_TOLD)}, got {nodes['split'].unique().to_list()}")
        edges = undirected(pairs["src"].cast(pl.Int64).to_numpy(), pairs["dst"].cast(pl.Int64).to_numpy())
        labels = nodes["label"].cast(pl.Int64).to_numpy()
        return cls(folder.name, texts, labels, tuple(named["label_name"].to_list()), edges, None if parts is None else parts.to_numpy())

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @cached_property
    def has_text(self) -> BoolArray:
        """bool (n,)."""
        return np.array([bool(text) for text in self.texts], dtype=np.bool_)

    @cached_property
    def edge_index(self) -> Tensor:
        """int64 (2, 2 E): both directions of each edge."""
        return torch.from_numpy(np.concatenate([self.edges, self.edges[::-1]], axis=1))

    @cached_property
    def digest(self) -> str:
        """sha256 of all that a result can depend on."""
        parts = None if self.parts is None else self.parts.tolist()
        return digest_of([self.texts, self.labels.tolist(), self.classes, self.edges.tolist(), parts])


def undirected(sources: IntArray, targets: IntArray) -> IntArray:
    """int64 (2, E): distinct pairs source < target in ascending order; self-loops are dropped, either direction is the same edge."""
    pairs = np.sort(np.stack([sources, targets], axis=1)[sources != targets].astype(np.int64), axis=1)
    return np.ascontiguousarray(np.unique(pairs, axis=0).T).reshape(2, -1)


def _table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: not readable as Parquet: {error}") from None
    if missing := [name for name in columns if name not in frame.columns]:
        raise DataError(f"{path}: no column {missing[0]!r}; it has: {', '.join(frame.columns)}")
    return frame
