"""Interactions of any size with a popularity that falls like a power of the rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from recsys.data.sources.table import TableFile, TableSource
from recsys.rng import numpy_generator
from recsys.types import IntArray

COLUMNS = {"user_id": "user_id", "item_id": "item_id", "time": "time"}
_HEAD = 10
"""Popularity of rank r is (r + _HEAD) ** -1."""


def events(n_events: int, n_users: int, n_items: int, *, least: int = 1, seed: int = 0) -> tuple[IntArray, IntArray]:
    """(users, items), int64 (n_events,). Each user has at least `least` events, each item at least one, and no pair comes
    twice, so that peers that drop repeats see the same data. Needs n_events >= n_users * least and >= n_items.
    """
    generator = numpy_generator(seed, "benchmarks", "synthetic")
    users = np.concatenate([np.repeat(np.arange(n_users), least), generator.integers(n_users, size=n_events - least * n_users)])
    generator.shuffle(users)
    running = np.cumsum(1.0 / (np.arange(n_items) + _HEAD))

    def draw(count: int) -> IntArray:
        return np.searchsorted(running, generator.random(count) * running[-1]).astype(np.int64)

    items = np.concatenate([np.arange(n_items), draw(n_events - n_items)])
    while True:
        pairs = users * n_items + items
        # Stable: of equal pairs the first stays, so that the one event of each item that is certain is never drawn again.
        order = np.argsort(pairs, kind="stable")
        in_order = pairs[order]
        again = order[1:][in_order[1:] == in_order[:-1]]
        if not len(again):
            return users, items
        items[again] = draw(len(again))


def write(path: Path, n_events: int, n_users: int, n_items: int, *, least: int = 1, seed: int = 0) -> None:
    """As Parquet with user_id, item_id and time (distinct), all int64, in the order of time."""
    users, items = events(n_events, n_users, n_items, least=least, seed=seed)
    order = numpy_generator(seed, "benchmarks", "order").permutation(n_events)
    pl.DataFrame({"user_id": users[order], "item_id": items[order], "time": np.arange(n_events)}).write_parquet(path)


def source(path: Path) -> TableSource:
    return TableSource(interactions=TableFile(path=path, columns=COLUMNS))
