"""A network that begins as a ranker that was trained before."""

from __future__ import annotations

import hashlib

import torch

from recsys.errors import ConfigError
from recsys.heads.network import FusionNetwork
from recsys.heads.ranker import FusedRanker


def begin_as(network: FusionNetwork, start: FusedRanker) -> None:
    """Copy the weights of `start` into `network`; rows of items that `start` does not know keep their fresh ones.

    A saved ranker holds the gated share of each ID, not the ID: it becomes the ID, and the gate begins anew with all weights 1. Item
    vectors begin where they ended then, but for the weights of the signals.

    Raises:
        ConfigError: another architecture or other signals, a head of its own, or more items than the network has.
    """
    if start.config.head != "tied" or network.head is not None:
        raise ConfigError("warm_start: a free head keeps no IDs of the items that are read; set head: tied, or warm_start: false")
    mine, theirs = network.state_dict(), start._network.state_dict()
    shapes = {name: tuple(value.shape) for name, value in mine.items() if name != "ids.weight"}
    others = {name: tuple(value.shape) for name, value in theirs.items() if name != "ids.weight"}
    if shapes != others or (network.ids is None) != (start._network.ids is None):
        differ = sorted(name for name in shapes.keys() | others.keys() if shapes.get(name) != others.get(name))
        raise ConfigError(f"warm_start: the champion has another form ({', '.join(differ[:3]) or 'ids'}); train this one from scratch: warm_start: false")
    copied = {name: value for name, value in theirs.items() if name != "ids.weight" and not name.startswith("gate.")}
    if network.ids is not None:
        shares = start._components[:, 0]
        rows, axes = network.ids.weight.shape
        if len(shares) > rows:
            raise ConfigError(f"warm_start: the champion knows {len(shares)} items, the data has {rows}; train from scratch: warm_start: false")
        copied["ids.weight"] = torch.cat([shares[:, shares.shape[1] - axes :], network.ids.weight.detach()[len(shares) :]])
    network.load_state_dict({**mine, **copied})


def fingerprint_of(start: FusedRanker) -> str:
    """sha256 of what a training begins as: part of what its checkpoints belong to."""
    running = hashlib.sha256(start._components.numpy().tobytes())
    for name, value in sorted(start._network.state_dict().items()):
        if name != "ids.weight":
            running.update(name.encode() + value.numpy().tobytes())
    return running.hexdigest()
