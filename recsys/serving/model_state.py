"""`ModelState`: all of a model that new items replace, as one immutable value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import polars as pl

from recsys.data.catalog import ItemCatalog
from recsys.ranking.index import ItemIndex
from recsys.serving.bundle import Bundle, Ranker, unit_rows
from recsys.serving.categories import Categories
from recsys.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class ModelState:
    """Swapped as one reference: a request sees the old or the new, never a mixture.

    index: cosine over the bundle's items. fresh: float32 (m, d) of length 1, the items added since, whose item_nums follow.
    popularity: float32 (n,), interactions at publishing time.
    """

    ranker: Ranker
    catalog: ItemCatalog
    titles: tuple[str, ...]
    categories: Categories
    index: ItemIndex
    fresh: FloatArray
    popularity: FloatArray

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Self:
        catalog = bundle.catalog
        fresh = np.zeros((0, bundle.index.dim), dtype=np.float32)
        counts = bundle.histories.counts(len(catalog)).astype(np.float32)
        return cls(bundle.ranker, catalog, tuple(catalog.titles()), Categories.of_items(catalog.categories()), bundle.index, fresh, counts)

    @property
    def added(self) -> int:
        return len(self.fresh)

    @cached_property
    def scorable(self) -> BoolArray:
        return self.ranker.scorable_items()

    @cached_property
    def unscorable(self) -> IntArray:
        """int64: the item_nums that no answer may hold."""
        return np.flatnonzero(~self.scorable)

    @cached_property
    def folded_titles(self) -> pl.Series:
        """For searching, without regard to case."""
        return pl.Series([title.casefold() for title in self.titles], dtype=pl.String)

    def with_items(self, new: ItemCatalog, vectors: Mapping[str, FloatArray]) -> Self:
        """vectors: signal -> float32 (m, d_s), rows aligned with `new`, whose columns are those of the catalog."""
        ranker = self.ranker.with_items(vectors)
        m = len(new)
        return type(self)(
            ranker,
            ItemCatalog(pl.concat([self.catalog.table, new.table])),
            self.titles + tuple(new.titles()),
            self.categories.extended(new.categories()),
            self.index,
            np.concatenate([self.fresh, unit_rows(ranker.items()[-m:])]),
            np.concatenate([self.popularity, np.zeros(m, dtype=np.float32)]),
        )

    def nearest(self, item_num: int, k: int) -> list[tuple[int, float]]:
        """(item_num, cosine) of the k nearest scorable items, best first, never the item itself; equal ones by item_num."""
        vector = unit_rows(self.ranker.items()[item_num : item_num + 1])
        # Rows that must not be shown may stand before the k-th that may.
        wanted = min(self.index.n_items, k + 1 + len(self.unscorable))
        values, found = self.index.search(vector, wanted)
        pairs = list(zip(found[0].tolist(), values[0].tolist(), strict=True))
        pairs += list(enumerate((self.fresh @ vector[0]).tolist(), start=self.index.n_items))
        kept = [(num, value) for num, value in pairs if num != item_num and num >= 0 and self.scorable[num]]
        return sorted(kept, key=lambda pair: (-pair[1], pair[0]))[:k]
