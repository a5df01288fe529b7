"""Contrastive learning on pairs of items: the loss in a batch, its temperature, and hard negatives."""

from __future__ import annotations

import math
from typing import Annotated

import scipy.sparse as sp
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from recsys.config import Config

MOST_SCALE = 100.0
"""A learned temperature stays at 1 / this or above, as in CLIP (Radford et al., 2021): beyond it training grows unstable."""
_ROWS_AT_ONCE = 512


class HardNegativesConfig(Config):
    per_anchor: Annotated[int, Field(ge=1)] = 2
    """Items added to a step for each of its pairs; every anchor of the step sees them all."""
    depth: Annotated[int, Field(ge=1)] = 30
    """They are drawn from the anchor's this many nearest items that are no pair with it. The very nearest are often the
    right answer to a question that nobody has asked yet, so drawing from some depth is kinder than taking the first."""


class ContrastiveConfig(Config):
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """Cosines are divided by it; where it is learned, where it starts."""
    learn_temperature: bool = False
    symmetric: bool = True
    """Also the second item of a pair looks for the first."""
    hard_negatives: HardNegativesConfig | None = None
    """Mined again at each beginning of an epoch, by the vectors of that moment; null: the batch alone."""


class Temperature(nn.Module):
    """The factor of the cosines, 1 / temperature; learned as its logarithm, or fixed."""

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__()
        start = torch.tensor(-math.log(config.temperature))
        self.log_scale = nn.Parameter(start, requires_grad=config.learn_temperature)

    def forward(self) -> Tensor:
        """Scalar."""
        return self.log_scale.clamp(max=math.log(MOST_SCALE)).exp()


def contrastive_loss(vectors: Tensor, anchors: Tensor, partners: Tensor, together: Tensor, scale: Tensor | float, *, symmetric: bool = True) -> Tensor:
    """InfoNCE (van den Oord et al., 2018) over the distinct items of a step; a scalar, the mean over the pairs.

    vectors: float (M, d), of length 1, one row for each distinct item (as NoteLLM does over all its 2B notes, here each once:
        an item that a step holds twice is neither its own negative nor a negative of double weight).
    anchors, partners: int64 (B,), rows of `vectors`.  scale: 1 / temperature.
    together: bool (M, M), pairs that are known from training. They are no negatives of each other: in a batch of popular
        items a good part of the others would be false ones.
    symmetric: the mean of both directions.

    Raises:
        ValueError: no pairs, shapes that do not fit, or a pair of an item with itself.
    """
    if anchors.ndim != 1 or anchors.shape != partners.shape or together.shape != (len(vectors), len(vectors)):
        raise ValueError(f"vectors {tuple(vectors.shape)}, anchors {tuple(anchors.shape)}, partners {tuple(partners.shape)}, together {tuple(together.shape)}")
    if not len(anchors) or bool((anchors == partners).any()):
        raise ValueError("a contrastive loss needs at least one pair, each of two items")
    if symmetric:
        anchors, partners = torch.cat([anchors, partners]), torch.cat([partners, anchors])
    excluded = together.index_select(0, anchors)
    excluded.scatter_(1, anchors[:, None], True)
    excluded.scatter_(1, partners[:, None], False)
    logits = vectors.index_select(0, anchors) @ vectors.T * scale
    return F.cross_entropy(logits.masked_fill(excluded, -torch.inf), partners)


def nearest_strangers(vectors: Tensor, pairs: sp.csr_array, depth: int) -> Tensor:
    """int64 (n, depth): the nearest items of each item that are neither itself nor a pair with it, best first.

    vectors: float (n, d), of length 1.  pairs: bool (n, n).  Where fewer than `depth` are left, the rest repeats the last.
    """
    n = len(vectors)
    found = torch.empty(n, depth, dtype=torch.int64)
    for start in range(0, n, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, n)
        scores = vectors[start:stop] @ vectors.T
        known = pairs[start:stop].tocoo()
        scores[torch.from_numpy(known.row).long(), torch.from_numpy(known.col).long()] = -torch.inf
        scores[torch.arange(stop - start), torch.arange(start, stop)] = -torch.inf
        values, columns = scores.topk(min(depth, n), dim=1)
        usable = (values > -torch.inf).sum(1, keepdim=True)
        if bool((usable == 0).any()):
            raise ValueError(f"item_num {start + int((usable[:, 0] == 0).nonzero()[0])} is a pair with every other item: it has no hard negative")
        found[start:stop] = columns.gather(1, torch.arange(depth).expand(stop - start, -1).minimum(usable - 1))
    return found
