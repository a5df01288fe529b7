"""What NoteLLM-2 puts between pictures and a language model: a connector, the one-word slot of the picture, gated late fusion.

Zhang et al., "NoteLLM-2: Multimodal Large Representation Models for Recommendation" (KDD 2025, arXiv 2405.16789). The vision model and
the words below the bridge are frozen; all of this file is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.embeddings.layers import UpperHalf


class Connector(nn.Module):
    """Features of a picture, float (B, c) -> `tokens` states (B, tokens, d) that stand among those of the words.

    Each has the length of a word's state at that place (`scale`, root mean square; learned): a picture that comes in at a tenth of it is
    not attended to, at ten times nothing else is.
    """

    def __init__(self, image_dim: int, dim: int, tokens: int, scale: float) -> None:
        super().__init__()
        self.inner = nn.Linear(image_dim, dim)
        self.outer = nn.Linear(dim, tokens * dim)
        self.scale = nn.Parameter(torch.tensor(scale))
        self._shape = (tokens, dim)

    def forward(self, features: Tensor) -> Tensor:
        states = self.outer(F.gelu(self.inner(features))).unflatten(1, self._shape)
        return F.rms_norm(states, self._shape[-1:]) * self.scale


class GatedFusion(nn.Module):
    """z = sigmoid(W [h; c]), h' = z h + (1 - z) c with c = W_c f. The published code returns h' + h.

    hidden: float (B, d), a state of the language model.  features: float (B, c), f of the picture.
    """

    def __init__(self, image_dim: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(image_dim, dim, bias=False)
        self.gate = nn.Linear(2 * dim, dim, bias=False)
        nn.init.xavier_normal_(self.project.weight)
        nn.init.xavier_normal_(self.gate.weight)

    def forward(self, hidden: Tensor, features: Tensor) -> Tensor:
        picture: Tensor = self.project(features)
        z = torch.sigmoid(self.gate(torch.cat([hidden, picture], dim=1)))
        return z * hidden + (1 - z) * picture


@dataclass(frozen=True)
class Layout:
    """Where the picture stands among the words of a prompt: after `before` of them come `tokens` states of the picture, and after
    `between` words more the slot of its one word; 0: the prompt asks for one word alone, at its end."""

    before: int
    between: int
    tokens: int

    @property
    def added(self) -> int:
        """States that are no words."""
        return self.tokens + bool(self.between)


class Bridge(nn.Module):
    """All that is trained beside the language model's own layers. `word` stands in the slot of the picture's one word; an item without a
    picture has the features `absent`."""

    def __init__(self, image_dim: int, dim: int, layout: Layout, *, scale: float = 1.0, late_fusion: bool = True) -> None:
        super().__init__()
        self.layout = layout
        self.connector = Connector(image_dim, dim, layout.tokens, scale)
        self.absent = nn.Parameter(torch.zeros(image_dim))
        self.word = nn.Parameter(torch.randn(dim) * scale) if layout.between else None
        self.fusion = GatedFusion(image_dim, dim) if late_fusion else None

    def features(self, images: Tensor, pictured: Tensor) -> Tensor:
        """float (B, c): standardised, whatever the vision model's scale; `absent` where `pictured`, bool (B,), is False."""
        return torch.where(pictured[:, None], F.layer_norm(images, images.shape[1:]), self.absent)


@dataclass(frozen=True)
class JointStates:
    """Not normalised, float32 (B, d). multimodal: of picture and text.  visual: of the picture alone; None where the prompt has one word."""

    multimodal: Tensor
    visual: Tensor | None


class JointModel(nn.Module):
    """Bridge and language model from the layer on where the picture comes in; differentiable.

    upper: of a causal model, or the picture's one word would depend on the text behind it.
    """

    def __init__(self, upper: UpperHalf, bridge: Bridge) -> None:
        super().__init__()
        self.upper, self.bridge = upper, bridge

    def forward(self, words: Tensor, seen: Tensor, images: Tensor, pictured: Tensor) -> JointStates:
        """words: (B, L, d), states of the prompt's words where the picture comes in, padded on the right.  seen: bool (B, L), False on padding.
        images: float (B, c), any value where `pictured`, bool (B,), is False."""
        bridge, layout = self.bridge, self.bridge.layout
        features = bridge.features(images, pictured)
        start, slot = layout.before, layout.before + layout.between
        parts = [words[:, :start], bridge.connector(features).to(words.dtype), words[:, start:slot]]
        if bridge.word is not None:
            parts.append(bridge.word.to(words.dtype).expand(len(words), 1, -1))
        last = seen.sum(1) + layout.added - 1
        read = torch.stack([last, torch.full_like(last, slot + layout.tokens - 1)] if layout.between else [last], dim=1)
        hidden = self.upper.at(read, torch.cat([*parts, words[:, slot:]], dim=1), use_cache=False).float()
        multimodal = hidden[:, 0]
        visual = hidden[:, 1] if layout.between else None
        if bridge.fusion is not None:
            multimodal = bridge.fusion(multimodal, features)
            visual = bridge.fusion(visual, features) if visual is not None else None
        return JointStates(multimodal, visual)
