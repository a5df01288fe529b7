"""Does a graph know of an interaction what it must not know?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recsys.data.leaks import LeakReport, assert_no_leak, find_leaks
from recsys.data.split import Split
from recsys.errors import LeakError
from recsys.graph.build import FROM_INTERACTIONS, INTERACTS, ITEM, USER
from recsys.types import IntArray

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData


def find_graph_leaks(split: Split, data: HeteroData) -> LeakReport:
    """Of its user-item edges and of the item-item edges that were made of interactions: see `recsys.data.leaks.find_leaks`."""
    trained, item_edges = _of_interactions(data)
    return find_leaks(split, trained, item_edges=item_edges)


def assert_no_graph_leak(split: Split, data: HeteroData, *, what: str = "the graph", support: bool = True) -> None:
    """support: look for a training user of each item-item edge, which takes minutes where there are millions. Without it they
    may not touch a held-out item.

    Raises:
        LeakError: a leak, or a graph of another split.
    """
    if data.split_hash != split.digest:
        raise LeakError(f"{what} was built on the split {data.split_hash[:12]}, not on {split.digest[:12]}: its edges may be targets here; build it again")
    trained, item_edges = _of_interactions(data)
    assert_no_leak(split, trained, item_edges=item_edges if support else None, what=what)
    touching = int(split.held_out[item_edges].any(axis=1).sum())
    if touching:
        raise LeakError(f"{what} knows what it must not know: {touching} edges of held out items that are made of interactions. Build it of split.train alone")


def _of_interactions(data: HeteroData) -> tuple[tuple[IntArray, IntArray], IntArray]:
    kind = (USER, INTERACTS, ITEM)
    users, items = data[kind].edge_index.numpy() if kind in data.edge_types else np.zeros((2, 0), dtype=np.int64)
    pairs = [data[edge].edge_index.numpy().T for edge in data.edge_types if edge[0] == ITEM and edge[2] == ITEM and edge[1] in FROM_INTERACTIONS]
    return (users, items), np.concatenate(pairs) if pairs else np.zeros((0, 2), dtype=np.int64)
