"""Array aliases, the request batch and the seams between models, evaluation and serving.

Outside ids (`user_id`, `item_id`) are strings; row numbers (`user_num`, `item_num`) are int64 positions in a
`Vocabulary`. The two are different words everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

UNKNOWN_NUM = -1
"""Row number of a user or item that the vocabulary does not hold."""


@dataclass(frozen=True)
class Queries:
    """A batch of ranking requests.

    user_nums: int64 (B,), `UNKNOWN_NUM` for a user that training never saw.
    histories: B int64 arrays of item_num, oldest first; may be empty.
    """

    user_nums: IntArray
    histories: Sequence[IntArray]

    def __post_init__(self) -> None:
        if len(self.user_nums) != len(self.histories):
            raise ValueError(f"{len(self.user_nums)} users but {len(self.histories)} histories")

    def __len__(self) -> int:
        return len(self.user_nums)

    def slice(self, start: int, stop: int) -> Queries:
        return Queries(self.user_nums[start:stop], self.histories[start:stop])

    @classmethod
    def of_history(cls, history: IntArray) -> Queries:
        """One request of a user known by history alone."""
        return cls(np.array([UNKNOWN_NUM], dtype=np.int64), (history,))


@runtime_checkable
class Scorer(Protocol):
    """The only seam that evaluation and serving know."""

    @property
    def n_items(self) -> int:
        """Number of rows of the item vocabulary that this scorer was fitted on."""
        ...

    def scorable_items(self) -> BoolArray:
        """bool (n_items,): False where the model has nothing to say of an item (ID-only models: items without
        training interactions). Such items rank last and are never recommended; a target among them is a miss."""
        ...

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C): higher is better, finite. Columns follow `item_nums` int64 (C,). Values in the columns
        of items that are not scorable carry no meaning."""
        ...


@runtime_checkable
class KnowsItems(Protocol):
    """A Scorer that can tell which items its rows are, so that a split of as many other items is refused."""

    @property
    def item_digest(self) -> str | None:
        """`Vocabulary.digest` of the items it was fitted on; None where that was not recorded."""
        ...


@runtime_checkable
class ScoresInto(Protocol):
    """A Scorer that can also write into memory it is given. Page faults of a fresh (B, C) array cost more than its product."""

    def score_into(self, queries: Queries, item_nums: IntArray, out: FloatArray) -> None:
        """Fill `out` float32 (B, C), C-contiguous, with what `score` returns."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """A model with vectors: matrix factorisation, graph, sequential."""

    @property
    def n_items(self) -> int: ...

    def represent(self, queries: Queries) -> FloatArray:
        """float32 (B, d) user states."""
        ...

    def items(self) -> FloatArray:
        """float32 (n_items, d) item vectors, in the space of `represent`."""
        ...

    def scorable_items(self) -> BoolArray: ...
