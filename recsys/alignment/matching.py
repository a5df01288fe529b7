"""Stage 1 of A-LLMRec (KDD 2024, section 4.1): encoders and decoders of item vectors and text vectors, and its four losses.

e_i = f_I^enc(E_i), q_i = f_T^enc(Q_i), both linear: the paper's "1-layer MLP" (its code adds a sigmoid, which confines the space to a cube).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.alignment.config import MatchingConfig


@dataclass(frozen=True)
class MatchingLosses:
    """Scalars, unweighted."""

    match: Tensor
    item: Tensor
    text: Tensor
    recommend: Tensor

    def total(self, config: MatchingConfig) -> Tensor:
        return config.match_weight * self.match + config.item_weight * self.item + config.text_weight * self.text + config.recommend_weight * self.recommend


class TextHead(nn.Module):
    """Q = z + W2 gelu(W1 z + b1), W2 begun at 0: what learns in place of the text encoder."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim, bias=False)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, vectors: Tensor) -> Tensor:
        return cast(Tensor, vectors + self.narrow(F.gelu(self.widen(vectors))))


class MatchingNetwork(nn.Module):
    """item_dim, text_dim: of the frozen vectors.  item_scale, text_scale: what they are divided by, so that their entries have a mean square
    of 1 and the weights of the losses mean the same for any backbone and text encoder."""

    def __init__(self, config: MatchingConfig, item_dim: int, text_dim: int, item_scale: float, text_scale: float) -> None:
        super().__init__()
        self.config = config
        self.item_encoder, self.item_decoder = nn.Linear(item_dim, config.dim), nn.Linear(config.dim, item_dim)
        self.text_encoder, self.text_decoder = nn.Linear(text_dim, config.dim), nn.Linear(config.dim, text_dim)
        self.text_head = TextHead(text_dim, config.text_hidden) if config.text_head == "mlp" else nn.Identity()
        self.item_scale: Tensor
        self.text_scale: Tensor
        self.register_buffer("item_scale", torch.tensor(item_scale))
        self.register_buffer("text_scale", torch.tensor(text_scale))

    def of_items(self, items: Tensor) -> Tensor:
        """e, float (..., d'), of item vectors float (..., d)."""
        return cast(Tensor, self.item_encoder(items / self.item_scale))

    def of_texts(self, texts: Tensor) -> Tensor:
        """q, float (..., d'), of text vectors float (..., k)."""
        return cast(Tensor, self.text_encoder(self.text_head(texts / self.text_scale)))

    def decoded(self, joint: Tensor) -> Tensor:
        """float (..., d): item vectors, in the frozen model's own scale, of the joint space."""
        return cast(Tensor, self.item_decoder(joint) * self.item_scale)

    def losses(self, states: Tensor, items: Tensor, texts: Tensor, has_text: Tensor) -> MatchingLosses:
        """The four losses over B users with 1 + N items each, column 0 the target's.

        states: float (B, d).  items: float (B, 1 + N, d).  texts: float (B, 1 + N, k).  has_text: bool (B, 1 + N); items without are
        left out of what concerns their text.
        """
        scaled, q_in = items / self.item_scale, self.text_head(texts / self.text_scale)
        e, q = self.item_encoder(scaled), self.text_encoder(q_in)
        rebuilt = self.item_decoder(e)
        # The dot product of the paper (its code takes the mean over the dimensions, which makes the loss weak).
        logits = torch.einsum("bd,bnd->bn", states, rebuilt * self.item_scale)
        recommend = -F.logsigmoid(logits[:, 0]).mean() - F.logsigmoid(-logits[:, 1:]).mean(dim=1).mean()
        return MatchingLosses(
            match=_mean_of((e - q).square().mean(dim=-1), has_text),
            item=(scaled - rebuilt).square().mean(),
            text=_mean_of((q_in.detach() - self.text_decoder(q)).square().mean(dim=-1), has_text),
            recommend=recommend,
        )


def _mean_of(values: Tensor, mask: Tensor) -> Tensor:
    """Of those in the mask; 0 where there are none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
