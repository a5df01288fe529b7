"""`ItemPairs`: items that training interactions bring together, counted, and drawn for contrastive training."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import Field

from recsys.config import Config
from recsys.data.sequences import Sequences
from recsys.data.split import Split
from recsys.errors import DataError
from recsys.types import BoolArray, IntArray

MEETINGS_AT_ONCE = 8_000_000
"""Meetings of two items that are sorted together: some 200 MB."""


class PairConfig(Config):
    window: Annotated[int, Field(ge=1)] = 3
    """Two items meet where they are at most this many steps apart in one user's training sequence."""
    minimum: Annotated[int, Field(ge=1)] = 1
    """Pairs that met less often are left out."""
    exponent: Annotated[float, Field(ge=0)] = 0.75
    """A pair is drawn in proportion to its count to this power: 0 draws all alike, 1 by count."""
    popularity: Annotated[float, Field(ge=0, le=1)] = 0.0
    """... divided by (d_i d_j) to this power, d the meetings of an item: with both exponents 1, by the exponential of the
    pointwise mutual information (Church and Hanks, 1990), so that two bestsellers are no stronger a pair than chance makes them."""


@dataclass(frozen=True)
class ItemPairs:
    """P distinct unordered pairs, sorted by (left, right).

    left, right: int32 (P,) item_num, left < right (an item is no pair with itself).  counts: int32 (P,), meetings.
    """

    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    n_items: int

    def __post_init__(self) -> None:
        if not len(self.left) == len(self.right) == len(self.counts):
            raise ValueError("columns of different lengths")
        for array in (self.left, self.right, self.counts):
            array.flags.writeable = False

    def __len__(self) -> int:
        return len(self.left)

    @classmethod
    def of_split(cls, config: PairConfig, split: Split) -> ItemPairs:
        """From `split.train` alone. Raises DataError: no two items meet."""
        pairs = co_occurrences(split.train, split.n_items, config.window, minimum=config.minimum)
        if not len(pairs):
            raise DataError(
                f"no two items meet {config.minimum} times or more within {config.window} steps of a training sequence: there is no pair to learn from"
            )
        return pairs

    @cached_property
    def matrix(self) -> sp.csr_array:
        """bool (n_items, n_items), symmetric: True where two items are a pair."""
        ones = np.ones(2 * len(self), dtype=np.bool_)
        rows, columns = np.concatenate([self.left, self.right]), np.concatenate([self.right, self.left])
        return sp.csr_array((ones, (rows, columns)), shape=(self.n_items, self.n_items))

    def together(self, item_nums: IntArray) -> BoolArray:
        """bool (M, M): which of item_nums int64 (M,) are a pair with each other."""
        return np.asarray(self.matrix[item_nums][:, item_nums].toarray(), dtype=np.bool_)

    def items(self) -> IntArray:
        """int64, ascending: the items that are in a pair."""
        return np.union1d(self.left, self.right).astype(np.int64)

    def weights(self, config: PairConfig) -> npt.NDArray[np.float64]:
        """float64 (P,), positive, of sum 1: see `PairConfig`."""
        counts = self.counts.astype(np.float64)
        meetings = np.bincount(self.left, counts, self.n_items) + np.bincount(self.right, counts, self.n_items)
        # In logarithms: a product of two popularities to a power may leave the range of a float.
        log = config.exponent * np.log(counts) - config.popularity * (np.log(meetings[self.left]) + np.log(meetings[self.right]))
        weights = np.exp(log - log.max())
        shares: npt.NDArray[np.float64] = weights / weights.sum()
        return shares


class PairSampler:
    """Draws pairs with replacement, each in the order that a coin decides.

    among: bool (P,): draw these alone; None is all. Raises DataError: none to draw.
    """

    def __init__(self, config: PairConfig, pairs: ItemPairs, among: BoolArray | None = None) -> None:
        self._pairs = pairs
        weights = pairs.weights(config) if among is None else np.where(among, pairs.weights(config), 0.0)
        self._running = np.cumsum(weights)
        if not len(self._running) or self._running[-1] == 0.0:
            raise DataError(f"none of {len(pairs)} pairs is left to draw")
        self._last = int(np.flatnonzero(weights)[-1])

    def draw(self, count: int, generator: np.random.Generator) -> tuple[IntArray, IntArray]:
        """int64 (count,) each: item_nums of the first and the second of each pair."""
        # Where a float falls on the end of a block of weight zero, `right` steps over the block; the product may round up to the sum.
        places = np.searchsorted(self._running, generator.random(count) * self._running[-1], side="right").clip(max=self._last)
        swapped = generator.random(count) < 0.5
        left, right = self._pairs.left[places].astype(np.int64), self._pairs.right[places].astype(np.int64)
        return np.where(swapped, right, left), np.where(swapped, left, right)


def co_occurrences(sequences: Sequences, n_items: int, window: int, *, minimum: int = 1, at_once: int = MEETINGS_AT_ONCE) -> ItemPairs:
    """Each meeting within `window` steps of one row counts once.

    Pairs are counted block by block of their lower item: beside the result, memory is bounded by `at_once` meetings and
    a few columns of the length of `sequences`.
    """
    items, rows = sequences.item_nums.astype(np.int32), sequences.row_nums().astype(np.int32)
    steps = range(1, min(window, len(items) - 1) + 1)
    per_item = np.zeros(n_items, dtype=np.int64)
    for step in steps:
        per_item += np.bincount(_lower(items, rows, step), minlength=n_items)[:n_items]
    blocks = []
    for low, high in _ranges(per_item, at_once):
        codes = np.concatenate([_codes(items, rows, step, low, high, n_items) for step in steps] or [np.zeros(0, dtype=np.int64)])
        met, counts = np.unique(codes, return_counts=True)
        kept = counts >= minimum
        left, right = np.divmod(met[kept], n_items)
        blocks.append(((left + low).astype(np.int32), right.astype(np.int32), counts[kept].astype(np.int32)))
    columns = [np.concatenate(column) for column in zip(*blocks, strict=True)] if blocks else [np.zeros(0, dtype=np.int32)] * 3
    return ItemPairs(columns[0], columns[1], columns[2], n_items)


def _meetings(items: npt.NDArray[np.int32], rows: npt.NDArray[np.int32], step: int) -> BoolArray:
    """bool (E - step,): the event at this place meets the one `step` later."""
    met: BoolArray = (rows[:-step] == rows[step:]) & (items[:-step] != items[step:])
    return met


def _lower(items: npt.NDArray[np.int32], rows: npt.NDArray[np.int32], step: int) -> npt.NDArray[np.int32]:
    met = _meetings(items, rows, step)
    return np.minimum(items[:-step][met], items[step:][met])


def _codes(items: npt.NDArray[np.int32], rows: npt.NDArray[np.int32], step: int, low: int, high: int, n_items: int) -> IntArray:
    """int64: (lower item - low) * n_items + higher item, of the meetings whose lower item is in low..high-1."""
    first, second = items[:-step], items[step:]
    lower = np.minimum(first, second)
    inside = _meetings(items, rows, step) & (lower >= low) & (lower < high)
    return (lower[inside] - np.int64(low)) * n_items + np.maximum(first[inside], second[inside])


def _ranges(per_item: IntArray, at_once: int) -> list[tuple[int, int]]:
    """Ranges of items with at most `at_once` meetings each, or of one item with more."""
    running, cuts = np.cumsum(per_item), [0]
    while cuts[-1] < len(per_item):
        before = running[cuts[-1] - 1] if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(running, before + at_once, side="right"))))
    return list(itertools.pairwise(cuts))
