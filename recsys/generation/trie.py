"""`TitleTrie`: the titles of a catalogue as a tree of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys.types import IntArray


class TitleTrie:
    """Every path from the root to a leaf is a title and its end.

    Node 0 is the root. `tokens` and `targets` int64 (E,) are the edges, those of node v at `offsets[v]:offsets[v + 1]`, ascending
    by token. A target of -1 - l is leaf l.  leaves[l]: the item_nums of that title.

    Items of one title cannot be told apart by it. The stated rule: the title stands for all of them, first the one with most
    training interactions, then by item_num.
    """

    def __init__(self, titles: Sequence[Sequence[int]], end: int, popularity: IntArray) -> None:
        """titles: token ids of each item, without `end`.  popularity: int64 (n,), training interactions."""
        children: list[dict[int, int]] = [{}]
        leaf_of: dict[int, int] = {}  # node where a title ends -> leaf
        self.leaves: list[list[int]] = []
        order = np.lexsort((np.arange(len(titles)), -popularity))
        for item_num in order.tolist():
            node = 0
            for token in titles[item_num]:
                if token not in children[node]:
                    children[node][token] = len(children)
                    children.append({})
                node = children[node][token]
            if node not in leaf_of:
                leaf_of[node] = len(self.leaves)
                children[node][end] = -1 - leaf_of[node]
                self.leaves.append([])
            self.leaves[leaf_of[node]].append(item_num)
        edges = [sorted(edge.items()) for edge in children]
        self.offsets: IntArray = np.concatenate([[0], np.cumsum([len(edge) for edge in edges])]).astype(np.int64)
        flat = np.array([pair for edge in edges for pair in edge], dtype=np.int64).reshape(-1, 2)
        self.tokens: IntArray = flat[:, 0].copy()
        self.targets: IntArray = flat[:, 1].copy()

    def expanded(self, nodes: IntArray) -> tuple[IntArray, IntArray]:
        """(owners, edges): the edges of each of `nodes` int64 (N,), one after the other, and whose they are (positions in `nodes`)."""
        starts, counts = self.offsets[nodes], self.offsets[nodes + 1] - self.offsets[nodes]
        owners = np.repeat(np.arange(len(nodes)), counts)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        return owners, starts[owners] + within
