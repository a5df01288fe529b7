"""`NeighbourSampler`: the neighbourhood of some nodes, a few neighbours of each, true to the whole graph on average.

torch-geometric's NeighborLoader needs pyg-lib or torch-sparse, which have no place in a lock for every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.graph.messages import Messages


class NeighbourSampler:
    """Draws from the messages of a whole graph, so that weights keep its normalisation."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self._starts = torch.zeros(messages.n_nodes + 1, dtype=torch.int64)
        torch.cumsum(torch.bincount(messages.edge_index[1], minlength=messages.n_nodes), 0, out=self._starts[1:])

    def sample(self, seeds: Tensor, fanouts: Sequence[int | None]) -> tuple[Messages, Tensor]:
        """Messages over the nodes int64 (m,) that come with them, the seeds first and in their order.

        seeds: int64 (s,), distinct. fanouts: one a layer; None takes all. At most so many of the messages that reach a node
        are drawn, without replacement, each weighed by (all / drawn): the sum is that of all on average (Hamilton et al., 2017,
        with the weights of Chen et al., 2018), and exactly where all are taken. A node's loop is always kept. Drawn with
        torch's generator.
        """
        n = self._messages.n_nodes
        local = torch.full((n,), -1, dtype=torch.int64)
        nodes = seeds
        local[seeds] = torch.arange(len(seeds))
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        frontier = seeds
        for fanout in fanouts:
            places, owners, factors = self._drawn(frontier, fanout)
            sources = self._messages.edge_index[0][places]
            parts.append((sources, frontier[owners], self._messages.weights[places] * factors))
            fresh = torch.unique(sources[local[sources] < 0])
            local[fresh] = torch.arange(len(nodes), len(nodes) + len(fresh))
            nodes, frontier = torch.cat([nodes, fresh]), fresh
        sources, targets = (local[torch.cat([part[side] for part in parts])] for side in (0, 1))
        weights = torch.cat([part[2] for part in parts])
        order = torch.argsort(targets * len(nodes) + sources)
        return Messages(torch.stack([sources, targets])[:, order], weights[order], len(nodes)), nodes

    def _drawn(self, targets: Tensor, fanout: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Places among the messages, the place in `targets` of each one's target, and the factor of its weight."""
        starts, counts = self._starts[targets], self._starts[targets + 1] - self._starts[targets]
        owners = torch.repeat_interleave(torch.arange(len(targets)), counts)
        within = torch.arange(len(owners)) - (counts.cumsum(0) - counts)[owners]
        places = starts[owners] + within
        if fanout is None or not bool((counts > fanout).any()):
            return places, owners, torch.ones(len(places))
        loops = self._messages.edge_index[0][places] == targets[owners]
        # Sorted by owner, then at random: the first `fanout` of each owner are kept. Loops come first.
        order = torch.argsort(owners + torch.rand(len(places), dtype=torch.float64).masked_fill_(loops, 0.0))
        kept = order[within < fanout]
        looped = torch.zeros(len(targets), dtype=torch.int64).index_add_(0, owners, loops.long())
        others = (counts - looped).to(torch.float32) / (counts.clamp(max=fanout) - looped).clamp(min=1)
        return places[kept], owners[kept], torch.where(loops[kept], 1.0, others[owners[kept]])
