"""`Prompts`: a request in tokens, with places where vectors stand for words (A-LLMRec, KDD 2024, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.alignment.config import PromptConfig
from recsys.config import digest_of
from recsys.generation.titles import Titles
from recsys.types import IntArray

USER = -1
"""In a prompt: here stands the user's vector."""
PAD = 0
"""In a batch of prompts, where nothing is looked at."""


def slot_of(item_num: int) -> int:
    """In a prompt: here stands the vector of that item."""
    return -2 - item_num


class Prompts:
    """Of one tokenizer and one catalogue. A prompt is a list of int: token ids from 0 on, `USER`, and `slot_of` an item.

    titles: one text an item_num.  user_vector, item_vectors: whether there are such places.
    """

    def __init__(self, config: PromptConfig, tokenizer: Any, titles: Sequence[str], *, user_vector: bool = True, item_vectors: bool = True) -> None:
        self.config, self._item_vectors = config, item_vectors
        self.titles = Titles(titles, tokenizer, config.title_tokens)

        def ids(text: str) -> list[int]:
            found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
            return found

        self._opens, self._ends, self._comma = ids(' "'), ids('"'), ids(",")
        self._begin = [*([USER, *ids(config.user)] if user_vector else []), *ids(config.history)]
        self._nothing, self._request, self._candidates, self._closing = map(ids, (config.nothing, config.request, config.candidates, config.closing))

    def recommend(self, history: IntArray, offered: Sequence[int] = ()) -> list[int]:
        """Up to the quotation mark behind which the recommended title begins. history: item_nums, oldest first.  offered: candidates to be named."""
        told = history[-self.config.history_items :].tolist()
        words = [*self._begin, *(self.listed(told) or self._nothing), *self._request]
        if len(offered):
            words += [*self._candidates, *self.listed(offered)]
        return [*words, *self._closing, *self._opens]

    def listed(self, item_nums: Sequence[int]) -> list[int]:
        """Quoted titles, each with its vector, with commas between."""
        words: list[int] = []
        for place, item_num in enumerate(item_nums):
            words += [*(self._comma if place else []), *self._opens, *self.titles.tokens[item_num], *self._ends]
            words += [slot_of(item_num)] if self._item_vectors else []
        return words

    def answer(self, item_num: int) -> list[int]:
        """The tokens of a title and of the quotation mark that ends it: what follows `recommend`."""
        return [*self.titles.tokens[item_num], *self._ends]

    @property
    def longest(self) -> int:
        """Tokens of a prompt and its answer, at most, without candidates."""
        title = self.config.title_tokens + len(self._opens) + len(self._ends) + len(self._comma) + 1
        fixed = len(self._begin) + len(self._nothing) + len(self._request) + len(self._closing)
        return fixed + (self.config.history_items + 1) * title

    @property
    def digest(self) -> str:
        frame = [self._begin, self._nothing, self._request, self._candidates, self._closing, self._opens, self._ends, self._comma]
        return digest_of([self.config.model_dump(mode="json"), self.titles.digest, frame, self._item_vectors])


def left_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(rows int64 (B, L), valid bool (B, L)), `PAD` on the left."""
    width = max(map(len, rows))
    padded, valid = np.full((len(rows), width), PAD, dtype=np.int64), np.zeros((len(rows), width), dtype=np.bool_)
    for place, row in enumerate(rows):
        padded[place, width - len(row) :] = row
        valid[place, width - len(row) :] = True
    return torch.from_numpy(padded), torch.from_numpy(valid)
