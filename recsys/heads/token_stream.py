"""Histories as one stream of title tokens, each title with its end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.generation.titles import Titles
from recsys.training.batches import PAD

_NONE = -1


@dataclass(frozen=True)
class Stream:
    """places: int64 (B, T), positions in the titles' vocabulary, padded on the left.  valid: bool (B, T).
    ends: bool (B, T), the end of each title; row by row they stand in the order of the valid entries of the history.
    first: bool (B, T), tokens of the first item of each row, its end included."""

    places: Tensor
    valid: Tensor
    ends: Tensor
    first: Tensor


def title_table(titles: Titles) -> Tensor:
    """int64 (n, max_tokens + 1): the tokens of each title and its end as positions in the vocabulary, -1 behind them."""
    table = torch.full((len(titles), titles.max_tokens + 1), _NONE, dtype=torch.int64)
    for item_num, ids in enumerate(titles.tokens):
        places = titles.places([*ids, titles.end])
        table[item_num, : len(places)] = torch.tensor(places)
    return table


def stream_of(rows: Tensor, table: Tensor) -> Stream:
    """rows: int64 (B, L) of item_nums, `PAD` on the left.  table: of `title_table`."""
    tokens = table[rows.clamp(min=0)].masked_fill((rows == PAD)[:, :, None], _NONE)  # (B, L, T)
    used = tokens != _NONE
    ends = used & ~torch.cat([used[:, :, 1:], torch.zeros_like(used[:, :, :1])], dim=2)
    begins = (rows != PAD).int().argmax(dim=1)
    first = used & (torch.arange(rows.shape[1])[None, :, None] == begins[:, None, None])
    # A stable sort by use moves the gaps to the left and leaves the tokens in their order.
    order = used.flatten(1).to(torch.int8).argsort(dim=1, stable=True)
    longest = max(1, int(used.flatten(1).sum(dim=1).max()))
    picked = order[:, order.shape[1] - longest :]
    places, valid, ends, first = (values.flatten(1).gather(1, picked) for values in (tokens, used, ends, first))
    return Stream(places.clamp(min=0), valid, ends, first)


def title_rows(items: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """(places, valid) int64 and bool (B, T) of the titles of `items` int64 (B,), ends included, padded on the right."""
    tokens = table[items]
    used = tokens != _NONE
    longest = int(used.sum(dim=1).max())
    return tokens[:, :longest].clamp(min=0), used[:, :longest]
