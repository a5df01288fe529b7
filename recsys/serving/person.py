"""`Person`: whom an answer is for, and by which step of the model it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from recsys.serving.recommender import Recommender
from recsys.types import FloatArray, IntArray

Step = Literal["fused", "cached_vector", "popularity"]
Source = Literal["online", "memory", "snapshot", "request", "none"]


@dataclass(frozen=True)
class Person:
    """history: int64 item_nums, the known ones, oldest first. vector: float32 (1, d), None for the step "popularity".

    source: where the history came from; "none" when it could not be had. ignored: item_ids of it that the model does not know.
    reason: why the step is not "fused".
    """

    user_id: str | None
    source: Source
    history: IntArray
    ignored: tuple[str, ...]
    step: Step
    vector: FloatArray | None
    reason: str | None = None

    def scores(self, model: Recommender, item_nums: IntArray | None = None) -> FloatArray:
        """float32 (1, C), -inf where an item is not scorable. Those of another step are of another scale."""
        if self.vector is not None:
            return model.scores(self.vector, item_nums)
        state = model.state
        chosen = slice(None) if item_nums is None else item_nums
        return np.where(state.scorable[chosen], state.popularity[chosen], np.float32(-np.inf))[None].astype(np.float32)

    def said(self) -> dict[str, Any]:
        """What an answer says of it."""
        told = {"features": self.source, "history": {"used": len(self.history), "ignored": list(self.ignored)}, "step": self.step}
        return told if self.reason is None else {**told, "degraded": self.reason}
