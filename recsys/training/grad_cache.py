"""Gradient caching: a loss over a large batch in the memory of a small one (Gao et al., RepL4NLP 2021, arXiv 2101.06983).

The first pass encodes chunk by chunk without a graph and takes the loss, and its gradient, on the vectors alone. The second
encodes each chunk once more, now with its graph, and sends the chunk's share of that gradient into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Chunk = TypeVar("Chunk")


def backward_in_chunks(encode: Callable[[Chunk], Tensor], chunks: Sequence[Chunk], loss: Callable[[Tensor], Tensor], *, cached: bool = True) -> float:
    """Value of `loss(cat(encode(chunk)))`; its gradients are added to the parameters of `encode` and of `loss`.

    encode: chunk -> float (m, d). It may draw random numbers (dropout) from torch's generator: the second pass sees what the
        first saw, so that value and gradient are those of one plain pass over the chunks in their order.
    loss: float (M, d) -> scalar.
    cached: False keeps the graphs of all chunks at once: one pass, a third less work, and the memory of the whole batch.
    """
    if not cached or len(chunks) == 1:
        value = loss(torch.cat([encode(chunk) for chunk in chunks]))
        value.backward()  # type: ignore[no-untyped-call]
        return value.item()
    states, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(torch.get_rng_state())
            parts.append(encode(chunk))
    vectors = torch.cat(parts).requires_grad_()
    value = loss(vectors)
    value.backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    after = torch.get_rng_state()
    gradients = torch.split(vectors.grad, [len(part) for part in parts])
    for chunk, state, gradient in zip(chunks, states, gradients, strict=True):
        torch.set_rng_state(state)
        encode(chunk).backward(gradient)  # type: ignore[no-untyped-call]
    torch.set_rng_state(after)
    return value.item()
