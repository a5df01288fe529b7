"""The links that a graph encoder learns to predict: user to item, with the user as a node or as the mean of its recent items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.data.sequences import Sequences
from recsys.errors import DataError
from recsys.graph.config import LinkConfig
from recsys.losses import softmax_cross_entropy


@dataclass(frozen=True)
class LinkBatch:
    """B links. members: int64 (M,) nodes whose mean is the user, link b's from offsets[b] on.  offsets: int64 (B,).  targets: int64 (B,) item_num."""

    members: Tensor
    offsets: Tensor
    targets: Tensor


class Links:
    """Every link of training once an epoch: each interaction after the items before it in its row, or each distinct user-item pair.

    users_from: node of user 0; None: a user is the mean of the `history` items before.
    """

    def __init__(self, train: Sequences, *, history: int, users_from: int | None = None) -> None:
        self._items = torch.from_numpy(train.item_nums.copy())
        rows = torch.from_numpy(train.row_nums())
        places = torch.arange(len(self._items))
        if users_from is None:
            begins = torch.from_numpy(train.offsets[:-1].copy())[rows]
            kept = places > begins
            self._places = places[kept]
            self._begins = torch.maximum(begins, places - history)[kept]
            self._users = None
        else:
            codes = np.unique(train.row_nums() * (int(train.item_nums.max(initial=0)) + 1) + train.item_nums, return_index=True)[1]
            self._places = torch.from_numpy(np.sort(codes).astype(np.int64))
            self._begins = self._places
            self._users = rows + users_from
        if not len(self._places):
            raise DataError("no user of training has two interactions: there is no link to learn" if self._users is None else "training has no interaction")

    def __len__(self) -> int:
        return len(self._places)

    def of_epoch(self, batch_size: int) -> Iterator[LinkBatch]:
        """In random order, by torch's generator."""
        order = torch.randperm(len(self))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            places, begins = self._places[chosen], self._begins[chosen]
            targets = self._items[places]
            if self._users is not None:
                yield LinkBatch(self._users[places], torch.arange(len(places)), targets)
                continue
            lengths = places - begins
            offsets = lengths.cumsum(0) - lengths
            within = torch.arange(int(lengths.sum())) - torch.repeat_interleave(offsets, lengths)
            yield LinkBatch(self._items[torch.repeat_interleave(begins, lengths) + within], offsets, targets)


def drawn_candidates(config: LinkConfig, known: Tensor, targets: Tensor) -> Tensor:
    """int64 (C,), ascending, the targets among them. known: int64, ascending: the items of training."""
    if config.loss == "softmax" and len(known) <= config.negatives:
        return known
    count = len(targets) if config.loss == "bpr" else config.negatives
    drawn: Tensor = torch.unique(torch.cat([targets, known[torch.randint(len(known), (count,))]]))
    return drawn


def link_loss(config: LinkConfig, users: Tensor, candidates: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
    """A scalar, the mean over the links. users: float (B, d).  candidates: float (C, d).  targets: int64 (B,), places in `candidates`.
    counts: float (C,), positive, training interactions of the candidates.

    bpr draws each link's negative among the candidates.
    """
    if config.cosine:
        users = F.normalize(users)
    if config.loss == "softmax":
        users = users / config.temperature
        if config.popularity:
            # One more dimension: the users' is 1, the candidates' what is added.
            users = torch.cat([users, users.new_ones(len(users), 1)], dim=1)
            candidates = torch.cat([candidates, (config.popularity * counts.to(candidates.dtype).log())[:, None]], dim=1)
        return softmax_cross_entropy(users, candidates, targets)
    others = torch.randint(max(len(candidates) - 1, 1), (len(targets),))
    others = (others + (others >= targets)).clamp(max=len(candidates) - 1)
    margins = (users * (F.embedding(targets, candidates) - F.embedding(others, candidates))).sum(1) / config.temperature
    loss: Tensor = F.softplus(-margins).mean()
    return loss
