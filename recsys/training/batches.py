"""Windows over histories, padded on the left and cropped to the longest of the batch.

Everything depends on (seed, epoch) alone: a resumed run sees the batches that the undisturbed run would have seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.rng import numpy_generator
from recsys.types import IntArray

PAD = -1
"""Fills the left of shorter rows; never an item_num."""


_PARTS = (8, 16, 32)
"""Windows of a batch are padded together up to these lengths: a long one does not make all others long."""


@dataclass(frozen=True)
class NextItemBatch:
    """inputs, targets: int64 (B, L); `targets[b, t]` follows `inputs[b, t]`. `PAD` on the left, at the same places in both."""

    inputs: IntArray
    targets: IntArray


def left_padded(rows: Sequence[IntArray], max_length: int) -> IntArray:
    """int64 (B, L): the last `max_length` entries of each row; L is the longest kept length, at least 1."""
    kept = [row[-max_length:] for row in rows]
    width = max([1, *(len(row) for row in kept)])
    padded = np.full((len(kept), width), PAD, dtype=np.int64)
    for row, values in zip(padded, kept, strict=True):
        if len(values):
            row[-len(values) :] = values
    return padded


def windows(rows: Sequence[IntArray], max_length: int, generator: np.random.Generator) -> list[IntArray]:
    """Pieces of at most `max_length + 1` entries. Neighbours overlap in one, so each transition of each row is
    predicted exactly once; the cuts move from epoch to epoch, so that no transition always has a short context."""
    pieces = []
    for row in rows:
        if len(row) < 2:
            continue
        # The cut nearest the end moves over one whole window; rows that fit stay whole.
        end = len(row) if len(row) <= max_length + 1 else len(row) - int(generator.integers(max_length))
        if end < len(row):
            pieces.append(row[end - 1 :])
        while end > 1:
            start = max(end - 1 - max_length, 0)
            pieces.append(row[start:end])
            end = start + 1
    return pieces


def next_item_batches(
    rows: Sequence[IntArray], *, max_length: int, batch_size: int, seed: int, epoch: int, sort: bool = False
) -> Iterator[tuple[NextItemBatch, ...]]:
    """One pass over all transitions, in an order given by (seed, epoch). One step's windows come in parts of similar length,
    whose positions together are the step: on short histories most of a padded batch would be padding.

    sort: fill steps by length instead of at random (steps themselves in random order). Known to harm; for comparison.
    """
    generator = numpy_generator(seed, "batches", str(epoch))
    pieces = windows(rows, max_length, generator)
    order = generator.permutation(len(pieces))
    starts = np.arange(0, len(pieces), batch_size)
    if sort:
        lengths = np.array([len(piece) for piece in pieces])
        order, starts = order[np.argsort(lengths[order], kind="stable")], generator.permutation(starts)
    for start in starts.tolist():
        yield _parts([pieces[i] for i in order[start : start + batch_size]], max_length)


def _parts(pieces: list[IntArray], max_length: int) -> tuple[NextItemBatch, ...]:
    bounds = [0, *(b for b in _PARTS if b < max_length), max_length]
    chosen = ([p for p in pieces if low < len(p) - 1 <= high] for low, high in itertools.pairwise(bounds))
    return tuple(NextItemBatch(left_padded([p[:-1] for p in part], max_length), left_padded([p[1:] for p in part], max_length)) for part in chosen if part)
