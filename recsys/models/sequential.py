"""`SequentialBackbone`: a fitted encoder over item vectors, ready to answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from recsys.errors import DataError
from recsys.models.encoder import SequenceEncoder
from recsys.training.batches import PAD, left_padded
from recsys.types import BoolArray, FloatArray, IntArray, Queries


class SequentialBackbone:
    """A fitted Backbone: an encoder, its input vectors and the output vectors in the space of its states. Immutable.

    inputs, outputs: float32 (n, d).  scorable: bool (n,).  default_state: float32 (d,), the state of an empty history.
    """

    def __init__(self, encoder: SequenceEncoder, inputs: Tensor, outputs: FloatArray, scorable: BoolArray, default_state: FloatArray | None = None) -> None:
        self._encoder = encoder.eval().requires_grad_(False)
        self._inputs = inputs.detach()
        # Aligned with `histories` by a spare last row: PAD (-1) indexes it.
        self._padded = torch.cat([self._inputs, self._inputs.new_zeros(1, self._inputs.shape[1])])
        self._outputs, self._scorable = outputs, scorable
        for array in (outputs, scorable):
            array.flags.writeable = False
        self._default = np.zeros(outputs.shape[1], dtype=np.float32) if default_state is None else default_state

    @property
    def encoder(self) -> SequenceEncoder:
        return self._encoder

    @property
    def default_state(self) -> FloatArray:
        return self._default

    @property
    def n_items(self) -> int:
        return len(self._outputs)

    def scorable_items(self) -> BoolArray:
        return self._scorable

    def items(self) -> FloatArray:
        return self._outputs

    def represent(self, queries: Queries) -> FloatArray:
        """float32 (B, d). Items without a vector are left out of the history; a history with nothing left gets the
        default state. Users are known by their histories alone.

        Raises:
            DataError: a history holds a number that is no item_num.
        """
        histories = [self._known(history) for history in queries.histories]
        states = np.tile(self._default, (len(histories), 1)).astype(np.float32)
        some = [row for row, history in enumerate(histories) if len(history)]
        if some:
            # One pass over all rows: callers chunk.
            states[some] = self._encode([histories[row] for row in some])
        return states

    def _encode(self, histories: Sequence[IntArray]) -> FloatArray:
        padded = torch.from_numpy(left_padded(histories, self._encoder.config.max_length))
        with torch.inference_mode():
            states = self._encoder.last(self._padded[padded], padded != PAD)
        return cast(FloatArray, states.numpy())

    def _known(self, history: IntArray) -> IntArray:
        if len(history) and (history.min() < 0 or history.max() >= self.n_items):
            found = f"{int(history.min())}..{int(history.max())}"
            raise DataError(f"history holds item_num {found}; this model knows 0..{self.n_items - 1}; leave unknown items out")
        return history[self._scorable[history]]
