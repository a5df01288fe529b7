"""torch, ready to be timed."""

from __future__ import annotations

import torch


def ready(threads: int) -> None:
    """Set the threads, and take one step of an optimiser: the first one imports a large part of torch."""
    torch.set_num_threads(threads)
    number = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([number], fused=True)
    number.sum().backward()
    optimiser.step()
