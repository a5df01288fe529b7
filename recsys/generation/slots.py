"""Key-value memory of a batch whose rows come and go: every row stands right-aligned, in buffers allocated ahead.

A row of L tokens fills the last L slots. Distances between slots are then distances between tokens, so that masks of sliding
windows stay right, and a row that joins needs no common start with the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

GROWTH = 64
"""Slots allocated at a time."""


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer: keys and values (B, heads, capacity, width), of which the first `length` slots are filled.

    transformers' own DynamicLayer copies all of it for every token.
    """

    is_sliding = False

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None, length: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values, self.length = keys, values, length
        self.is_initialized = keys is not None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = _room(key_states, 0), _room(value_states, 0)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        stop = self.length + key_states.shape[-2]
        if self.keys is None or self.values is None:
            self.keys, self.values = _room(key_states, stop), _room(value_states, stop)
            self.is_initialized = True
        elif stop > self.keys.shape[-2]:
            self.keys, self.values = _grown(self.keys, self.length, stop), _grown(self.values, self.length, stop)
        self.keys[:, :, self.length : stop] = key_states
        self.values[:, :, self.length : stop] = value_states
        self.length = stop
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    @property
    def filled(self) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, length, width)."""
        assert self.keys is not None and self.values is not None
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


class Slots(Cache):
    """The memory of a batch, as transformers' models take it."""

    def __init__(self, layers: list[SlotLayer] | None = None) -> None:
        super().__init__(**({"layers": layers} if layers else {"layer_class_to_replicate": SlotLayer}))

    @property
    def slot_layers(self) -> list[SlotLayer]:
        return cast(list[SlotLayer], self.layers)

    @property
    def length(self) -> int:
        """Slots filled, of the longest row."""
        return int(self.get_seq_length())


def behind_prefix(prefix: Slots, lengths: Sequence[int], columns: int) -> Slots:
    """Memory of a batch that is about to compute the last `columns` tokens of each row, the tokens before them taken from `prefix` (one row).

    lengths: tokens of each row, all that lies before the last `columns` within the prefix. Rows shorter than `columns` begin with padding.
    """
    longest = max(lengths)
    held = max(longest - columns, 0)
    layers: list[SlotLayer] = []
    for layer in prefix.slot_layers:
        pair: list[Tensor] = []
        for source in layer.filled:
            _, heads, _, width = source.shape
            room = source.new_zeros(len(lengths), heads, longest + GROWTH, width)
            for length in sorted(set(lengths)):
                if length > columns:
                    rows = [row for row, other in enumerate(lengths) if other == length]
                    room[rows, :, longest - length : held] = source[:, :, : length - columns]
            pair.append(room)
        layers.append(SlotLayer(pair[0], pair[1], held))
    return Slots(layers)


def joined(parts: Sequence[tuple[Slots, Sequence[int]]], longest: int) -> Slots:
    """The chosen rows of several memories as one, right-aligned at `longest` slots (at least the tokens of every chosen row). The parts are used up."""
    layers: list[SlotLayer] = []
    rows = sum(len(chosen) for _, chosen in parts)
    for number in range(len(parts[0][0].slot_layers)):
        pair: list[Tensor] = []
        for which in (0, 1):
            sample = parts[0][0].slot_layers[number].filled[which]
            # Zeros, for what is masked is still multiplied by a weight of 0, and garbage may be NaN.
            room = sample.new_zeros(rows, sample.shape[1], longest + GROWTH, sample.shape[3])
            start = 0
            for slots, chosen in parts:
                source = slots.slot_layers[number].filled[which]
                kept = min(source.shape[2], longest)
                source = source[:, :, source.shape[2] - kept :]
                room[start : start + len(chosen), :, longest - kept : longest] = source if len(chosen) == len(source) else source[list(chosen)]
                start += len(chosen)
            pair.append(room)
        for slots, _ in parts:
            slots.slot_layers[number].keys = slots.slot_layers[number].values = None  # the peak is one memory and one layer, not two memories
        layers.append(SlotLayer(pair[0], pair[1], longest))
    return Slots(layers)


def _room(like: Tensor, slots: int) -> Tensor:
    batch, heads, _, width = like.shape
    return like.new_empty(batch, heads, slots + GROWTH, width)


def _grown(buffer: Tensor, length: int, slots: int) -> Tensor:
    room = _room(buffer, slots)
    room[:, :, :length] = buffer[:, :, :length]
    return room
