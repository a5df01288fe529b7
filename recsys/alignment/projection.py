"""Stage 2 of A-LLMRec (KDD 2024, section 4.2): what turns users and items into tokens of a frozen language model, and its states into scores."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from recsys.alignment.config import ProjectionConfig
from recsys.embeddings.norms import RMSNorm
from recsys.heads.item_projection import TiedHead


class ProjectionNetwork(nn.Module):
    """All that stage 2 trains. The language model is not in it.

    state_dim, joint_dim: of user states and of the joint space.  width, scale: of the language model's tokens, and the root mean square of their
    entries: with the paper's initial weights the projections put out entries of about 1, which next to tokens would drown them.
    """

    def __init__(self, config: ProjectionConfig, state_dim: int, joint_dim: int, width: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.user = nn.Sequential(nn.Linear(state_dim, width), nn.LayerNorm(width), nn.LeakyReLU(), nn.Linear(width, width)) if config.user_vector else None
        self.item = nn.Sequential(nn.Linear(joint_dim, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
        self.lens = self.norm = self.state = self.head = None
        if config.readout == "lens":
            self.lens = nn.Linear(width, width)
            nn.init.zeros_(self.lens.weight)
            nn.init.zeros_(self.lens.bias)
        if config.catalogue_weight:
            # The model's own norm was learned for what its last layer puts out.
            self.norm, self.state = RMSNorm(nn.Parameter(torch.ones(width)), 1e-5), nn.Linear(width, config.catalogue_dim, bias=False)
            self.head = TiedHead(width, config.catalogue_dim, scale)
            if config.on_backbone:
                nn.init.zeros_(self.state.weight)

    def users(self, states: Tensor) -> Tensor:
        """O_u = F_U(x): float (B, width) of user states float (B, d)."""
        assert self.user is not None
        return cast(Tensor, self.user(states) * self.scale)

    def items(self, joint: Tensor) -> Tensor:
        """O_i = F_I(e): float (n, width) of joint vectors float (n, d')."""
        return cast(Tensor, self.item(joint) * self.scale)

    def begin_lens(self, weight: Tensor, bias: Tensor) -> None:
        """weight: float32 (width, width), bias: float32 (width,); see `recsys.alignment.lens`."""
        assert self.lens is not None
        with torch.no_grad():
            self.lens.weight.copy_(weight)
            self.lens.bias.copy_(bias)

    def readout(self, states: Tensor) -> Tensor:
        """float (..., width): the language model's states as its norm and head are to read them."""
        return states if self.lens is None else states + self.lens(states)

    def ranking_states(self, states: Tensor) -> Tensor:
        """float (B, k) of the states at the last token of each prompt."""
        assert self.norm is not None and self.state is not None
        return cast(Tensor, self.state(self.norm(states)))

    def ranking_items(self, items: Tensor) -> Tensor:
        """float (n, k) of projected items float (n, width): an item is ranked by what stands for it in prompts."""
        assert self.head is not None
        return self.head.items(items)
