"""Texts to windows of token ids, and windows to padded batches. A text longer than a window is split, never cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from recsys.errors import ConfigError, DataError

_BATCH_COST = 64
"""Tokens that could be computed in the time that a batch costs beside its products: of the order measured, from 10 (few threads) to 100."""


@dataclass(frozen=True, slots=True)
class Window:
    """ids: what the model reads. start: the tokens before it (an instruction) are seen by the others, but not pooled.
    owner: position of the text that the window belongs to."""

    ids: list[int]
    start: int
    owner: int

    @property
    def weight(self) -> int:
        """Tokens from `start` on: the share of this window in its text's vector."""
        return len(self.ids) - self.start


@dataclass(frozen=True)
class Batch:
    """Windows side by side, padded on the right with id 0.

    ids: int64 (B, L).  seen: bool (B, L), False on padding.  pooled: bool (B, L), False on padding and before the window's start.
    """

    ids: Tensor
    seen: Tensor
    pooled: Tensor

    @property
    def padded(self) -> bool:
        return not bool(self.seen.all())

    @classmethod
    def of(cls, windows: Sequence[Window], *, pad_to: int = 0) -> Self:
        """As long as the longest window, or `pad_to` if that is more."""
        lengths = torch.tensor([len(window.ids) for window in windows])
        starts = torch.tensor([window.start for window in windows])
        longest = max(pad_to, int(lengths.max()))
        ids = torch.tensor([window.ids + [0] * (longest - len(window.ids)) for window in windows])
        positions = torch.arange(longest)
        seen = positions < lengths[:, None]
        return cls(ids, seen, seen & (positions >= starts[:, None]))


class Windower:
    """Cuts texts into windows of at most `max_length` tokens, each between the tokens `before` and `after`.

    start: position in the window from which on tokens are pooled. gap: white space between `before` and the text.
    Names of special tokens in a text ("<|im_end|>", "[SEP]") are read as the letters they are made of: text is data.
    """

    def __init__(self, tokenizer: Any, max_length: int, *, before: Sequence[int], after: Sequence[int], start: int = 0, gap: str = "") -> None:
        self.max_length = max_length
        self._tokenizer = tokenizer
        self._before, self._after, self._start, self._gap = list(before), list(after), start, gap
        self._room = max_length - len(self._before) - len(self._after)
        if self._room < 1:
            raise ConfigError(f"max_length {max_length} leaves no room for the text: {len(self._before) + len(self._after)} tokens stand around it")

    @classmethod
    def plain(cls, tokenizer: Any, max_length: int, *, instruction: str = "", closing: bool = False) -> Self:
        """The tokenizer's own special tokens around instruction and text. Pooled is the text with the tokens after it; without an
        instruction also what the tokenizer puts first ([CLS], <s>).

        closing: a text that the tokenizer does not end with a token of its own ([SEP], </s>) is ended with EOS.

        Raises:
            ConfigError: closing, but the tokenizer has no EOS; or no room for the text.
        """
        before, after = special_tokens(tokenizer)
        if closing and not after:
            if tokenizer.eos_token_id is None:
                raise ConfigError("pooling: last needs a token that ends the text, and the tokenizer has neither EOS nor one of its own; use pooling: mean")
            after = [tokenizer.eos_token_id]
        said = instruction.rstrip()
        # Most tokenizers read a word and the space before it as one token.
        gap = instruction[len(said) :]
        if said:
            before = [*before, *tokenizer(said, add_special_tokens=False)["input_ids"]]
        return cls(tokenizer, max_length, before=before, after=after, start=len(before) if said else 0, gap=gap)

    def split(self, texts: Sequence[str]) -> list[Window]:
        """In order of the texts. Raises DataError: a text without tokens."""
        if not texts:
            return []
        windows = []
        ids_of = self._tokenizer([self._gap + text for text in texts], add_special_tokens=False, truncation=False, split_special_tokens=True, verbose=False)
        for owner, ids in enumerate(ids_of["input_ids"]):
            if not ids or not texts[owner]:
                raise DataError(f"text {owner} ({texts[owner][:40]!r}) has no tokens; give the item a text or leave it out")
            for begin in range(0, len(ids), self._room):
                windows.append(Window([*self._before, *ids[begin : begin + self._room], *self._after], self._start, owner))
        return windows


def batches(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Row numbers sorted by length, cut where padding and the fixed cost of a batch are least together; a padded size is within the
    budget, but for a row that alone is beyond it."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    least, begins = [0], [0]  # of the first n rows: their cost in tokens, and where their last batch begins
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        begin, cost = end - 1, least[end - 1] + longest
        for start in range(end - 2, -1, -1):
            size = (end - start) * longest
            if size > token_budget:
                break
            if least[start] + size < cost:
                begin, cost = start, least[start] + size
        least.append(cost + _BATCH_COST)
        begins.append(begin)
    cuts = [len(order)]
    while cuts[-1]:
        cuts.append(begins[cuts[-1]])
    for end, start in zip(cuts[-2::-1], cuts[:0:-1], strict=True):
        yield order[start:end]


def chunked(windows: Sequence[Window], n_texts: int) -> int:
    """How many of the texts have more than one window."""
    if not windows:
        return 0
    return int((torch.bincount(torch.tensor([window.owner for window in windows]), minlength=n_texts) > 1).sum())


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    start = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), None)
    if start is None:
        raise ConfigError(f"tokenizer {type(tokenizer).__name__}: its special tokens change those of the text, {bare} became {full}")
    return full[:start], full[start + len(bare) :]
