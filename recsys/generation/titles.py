"""`Titles`: the titles of a catalogue as tokens, ready for a prompt or to be generated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from recsys.config import digest_of
from recsys.data.text import clean_text
from recsys.errors import ConfigError
from recsys.types import IntArray

_HARMLESS = str.maketrans({"<": "‹", ">": "›", '"': "'", "“": "'", "”": "'"})
"""A title cannot spell a special token, nor close the quotation marks around it."""


class Titles:
    """tokens: one list of token ids an item_num, at least one and at most `max_tokens` long, without special tokens.

    end: the token behind a title, a line break: no title holds one.
    vocabulary: int64 (V',), ascending, the tokens that occur in some title, and `end`. Generation that is held to the catalogue
    needs no others, and their softmax costs a fraction.

    Raises:
        ConfigError: the tokenizer has no single token for a line break.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Any, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.texts = [title_text(text) or str(number) for number, text in enumerate(texts)]
        line_break = tokenizer("\n", add_special_tokens=False)["input_ids"]
        if not line_break:
            raise ConfigError(f"{type(tokenizer).__name__} has no token for a line break, which ends a title")
        self.end = int(line_break[-1])
        forbidden = {self.end, *tokenizer.all_special_ids, *tokenizer.added_tokens_decoder} - {tokenizer.unk_token_id}
        encoded = tokenizer(self.texts, add_special_tokens=False, truncation=False)["input_ids"] if texts else []
        self.tokens = [[token for token in ids if token not in forbidden][:max_tokens] for ids in encoded]
        for number, ids in enumerate(self.tokens):
            if not ids:  # every token was forbidden
                self.tokens[number] = tokenizer(str(number), add_special_tokens=False)["input_ids"][:max_tokens]

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def vocabulary(self) -> IntArray:
        return np.array(sorted({self.end, *(token for ids in self.tokens for token in ids)}), dtype=np.int64)

    @cached_property
    def digest(self) -> str:
        return digest_of([self.tokens, self.end])

    def places(self, ids: Sequence[int]) -> list[int]:
        """Positions in `vocabulary`."""
        found: list[int] = np.searchsorted(self.vocabulary, np.array(ids, dtype=np.int64)).tolist()
        return found


def title_text(text: str) -> str:
    """One line that neither spells a special token nor ends a quotation. What its words ask for cannot be taken away: it is data."""
    return clean_text(text).translate(_HARMLESS)
