"""The links that a graph encoder learns to predict: user to item, with the user as a node or as the mean of its recent items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from recsys.config import Config
from recsys.data.sequences import Sequences
from recsys.errors import DataError
from recsys.losses import softmax_cross_entropy
from recsys.training.config import TrainingConfig


class LinkConfig(Config):
    loss: Literal["softmax", "bpr"] = "softmax"
    """softmax: over the items of training, or `negatives` of them; bpr: against one of them (Rendle et al., 2009)."""
    negatives: Annotated[int, Field(ge=1)] = 4096
    """Of softmax: items a step, shared by the batch, drawn uniformly; all where there are no more."""
    cosine: bool = True
    """Compare directions; else inner products, in which a length can tell how popular an item is."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Of the softmax; the smaller, the more the nearest negatives count."""
    popularity: Annotated[float, Field(ge=0)] = 0.0
    """Of softmax: so many times the logarithm of an item's training count is added to its logits, in training alone: with 1 the vectors need not tell what
    is popular, which no new item could have learned from (logit adjustment, Menon et al., ICLR 2021)."""
    cold_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the items that an epoch takes for new: without edges made of interactions, and without a vector of their own.
    0: cold items are out of distribution."""
    history: Annotated[int, Field(ge=1)] = 50
    """Recent items that make the user of a graph without users."""
    fanouts: tuple[Annotated[int, Field(ge=1)], ...] = (15, 10)
    """Neighbours a node that are drawn, one number a layer; of a graph beyond `full_batch_up_to`."""
    full_batch_up_to: Annotated[int, Field(ge=0)] = 2_000_000
    """Messages up to which each step passes over the whole graph."""
    training: TrainingConfig = TrainingConfig(epochs=100, patience=5, validate_every=2, batch_size=4096, learning_rate=2e-3, betas=(0.9, 0.999))
    """`batch_size` counts links."""

    @field_validator("training")
    @classmethod
    def _no_windows(cls, training: TrainingConfig) -> TrainingConfig:
        if training.sort_by_length:
            raise ValueError("sort_by_length orders windows of histories; links have none, leave it out")
        return training


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
