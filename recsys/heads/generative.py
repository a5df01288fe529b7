"""`GenerativeLLM`: the way that Lite-LLM4Rec replaces. The next item's title is generated, beams of tokens held to the catalogue by a trie."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch

from recsys.generation.beam import BeamSearch
from recsys.generation.trie import TitleTrie
from recsys.heads.lite_llm import load_network, readable_histories, save_network
from recsys.heads.lite_network import LiteNetwork
from recsys.training.batches import left_padded
from recsys.types import UNKNOWN_NUM, BoolArray, FloatArray, IntArray, Queries

_ROWS = 32


class GenerativeLLM:
    """A fitted Scorer without vectors: the items that the beams find, in their order, and all others tied behind them.

    readable: bool (n,), items that a history may hold.  popularity: int64 (n,), training interactions: items of one title stand in
    the order of `TitleTrie`.  A history with nothing to read gets no item.
    """

    def __init__(self, network: LiteNetwork, space_id: str, readable: BoolArray, popularity: IntArray, *, item_digest: str | None = None) -> None:
        self.config, self.space_id, self.item_digest = network.config, space_id, item_digest
        self._network = network.eval().requires_grad_(False)
        self._readable, self._popularity = readable, popularity
        table = network.title_table
        assert table is not None
        titles = [row[row >= 0].tolist() for row in table]
        # The last token of a row of the table is the end.
        self._trie = TitleTrie([row[:-1] for row in titles], titles[0][-1], popularity)
        self._leaf_of = {item: leaf for leaf, items in enumerate(self._trie.leaves) for item in items}
        with torch.inference_mode():
            self._inputs = network.inputs()
        self._search = BeamSearch(network.body, network.title_head(), self._trie, width=self.config.beams)

    @property
    def n_items(self) -> int:
        return len(self._readable)

    def scorable_items(self) -> BoolArray:
        """All: every item has a title."""
        return np.ones(self.n_items, dtype=np.bool_)

    def generate(self, queries: Queries) -> IntArray:
        """int64 (B, beams): item_nums, the likeliest title first; `UNKNOWN_NUM` where there are no more.

        Raises:
            DataError: a history holds a number that is no item_num.
        """
        histories = readable_histories(queries.histories, self._readable)
        lists = np.full((len(histories), self.config.beams), UNKNOWN_NUM, dtype=np.int64)
        some = sorted((row for row, history in enumerate(histories) if len(history)), key=lambda row: len(histories[row]))
        for start in range(0, len(some), _ROWS):
            chosen = some[start : start + _ROWS]
            rows = torch.from_numpy(left_padded([histories[row] for row in chosen], self.config.max_length))
            with torch.inference_mode():
                vectors, valid = self._network.prompts(rows, self._inputs)
            # A title is forbidden only where every item of it was met.
            met = [set(queries.histories[row].tolist()) if not self.config.generate_seen else set() for row in chosen]
            forbidden = [{leaf for leaf in {self._leaf_of[item] for item in items} if items.issuperset(self._trie.leaves[leaf])} for items in met]
            for row, items, found in zip(chosen, met, self._search.run(vectors, valid, forbidden), strict=True):
                named = [item for leaf, _ in found for item in self._trie.leaves[leaf] if item not in items][: self.config.beams]
                lists[row, : len(named)] = named
        return lists

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C): 1 / place in the list, 0 for items that were not generated."""
        scores = np.zeros((len(queries), self.n_items), dtype=np.float32)
        lists = self.generate(queries)
        rows, places = np.nonzero(lists != UNKNOWN_NUM)
        scores[rows, lists[rows, places]] = 1.0 / (1.0 + places)
        return scores[:, item_nums]

    def save(self, folder: Path) -> None:
        """lite_llm.safetensors and lite_llm.json."""
        tensors = {"readable": torch.from_numpy(self._readable.astype(np.uint8)), "popularity": torch.from_numpy(self._popularity.copy())}
        save_network(folder, self._network, tensors, {"space_id": self.space_id, "item_digest": self.item_digest})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises ArtifactError: files missing, or written by another version."""
        network, tensors, facts = load_network(folder)
        readable, popularity = tensors["readable"].numpy().astype(np.bool_), tensors["popularity"].numpy()
        return cls(network, facts["space_id"], readable, popularity, item_digest=facts["item_digest"])
