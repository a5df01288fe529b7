"""The loss of NoteLLM-2: items that training brings together lie side by side, by picture and text, and by the picture alone."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.training.contrastive import contrastive_loss

WEIGHTS = (9.0, 1.0)
"""Of the multimodal and the visual loss in NoteLLM-2's final model."""


def joint_loss(
    multimodal: Tensor,
    visual: Tensor | None,
    pictured: Tensor,
    anchors: Tensor,
    partners: Tensor,
    together: Tensor,
    scale: Tensor | float,
    *,
    weights: tuple[float, float] = WEIGHTS,
    symmetric: bool = True,
) -> Tensor:
    """(w_m L_m + w_v L_v) / (w_m + w_v); each is a `contrastive_loss`, whose arguments these are, L_v over the pairs of two pictures.

    multimodal, visual: float (M, d), of length 1.  pictured: bool (M,).  Without `visual`, or without a pair of two pictures: L_m alone.
    """
    loss = contrastive_loss(multimodal, anchors, partners, together, scale, symmetric=symmetric)
    both = pictured[anchors] & pictured[partners]
    if visual is None or not bool(both.any()):
        return loss
    rows = pictured.nonzero().squeeze(1)
    place = pictured.cumsum(0) - 1
    known = together.index_select(0, rows).index_select(1, rows)
    of_pictures = contrastive_loss(visual.index_select(0, rows), place[anchors[both]], place[partners[both]], known, scale, symmetric=symmetric)
    return (weights[0] * loss + weights[1] * of_pictures) / (weights[0] + weights[1])


def stacked(multimodal: Tensor, visual: Tensor | None) -> Tensor:
    """float (M, 2, d), or (M, 1, d) without `visual`: one tensor of both, as gradient caching wants it."""
    return torch.stack([multimodal] if visual is None else [multimodal, visual], dim=1)


def unstacked(vectors: Tensor) -> tuple[Tensor, Tensor | None]:
    """What `stacked` was given."""
    return vectors[:, 0], vectors[:, 1] if vectors.shape[1] > 1 else None
