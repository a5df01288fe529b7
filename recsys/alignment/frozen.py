"""`FrozenBackbone`: a recommender that alignment reads and never moves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from recsys.alignment.config import UsersBy
from recsys.errors import ConfigError, NonFiniteError
from recsys.types import UNKNOWN_NUM, Backbone, BoolArray, FloatArray, IntArray, Queries

_ROWS = 256
_PROBES = 8


class FrozenBackbone:
    """Any Backbone: ours, LightGCN, RecBole models that export vectors.

    users_by: "history" asks for every user as for one that is known by history alone, so that training and service agree; "id" gives
    the user's own number.

    Raises:
        ConfigError: two passes over equal requests differ (dropout is at work: it is not in eval mode).  NonFiniteError: vectors.
    """

    def __init__(self, backbone: Backbone, users_by: UsersBy = "history") -> None:
        self._backbone, self._users_by = backbone, users_by
        self.items: FloatArray = np.array(backbone.items(), dtype=np.float32)
        self.scorable: BoolArray = backbone.scorable_items()
        if not np.isfinite(self.items[self.scorable]).all():
            raise NonFiniteError(f"{type(backbone).__name__}: an item vector holds NaN or infinity")
        self.digest = hashlib.sha256(np.ascontiguousarray(self.items, dtype="<f4").tobytes()).hexdigest()
        """Which model this is: sha256 of its item vectors."""
        self._answers = self._probed()
        self.require_unchanged()

    @property
    def n_items(self) -> int:
        return len(self.items)

    @property
    def dim(self) -> int:
        return int(self.items.shape[1])

    def states(self, user_nums: IntArray, histories: Sequence[IntArray]) -> FloatArray:
        """float32 (B, d). Items that the backbone does not know are left out of the histories."""
        known = [np.asarray(history, dtype=np.int64) for history in histories]
        known = [history[self.scorable[history]] if len(history) else history for history in known]
        nums = np.full(len(known), UNKNOWN_NUM, dtype=np.int64) if self._users_by == "history" else np.asarray(user_nums, dtype=np.int64)
        found = [self._backbone.represent(Queries(nums[start : start + _ROWS], known[start : start + _ROWS])) for start in range(0, len(known), _ROWS)]
        states: FloatArray = np.concatenate(found).astype(np.float32) if found else np.zeros((0, self.dim), dtype=np.float32)
        if not np.isfinite(states).all():
            raise NonFiniteError(f"{type(self._backbone).__name__}: a user state holds NaN or infinity")
        return states

    def require_unchanged(self) -> None:
        """Raises ConfigError: its items or its answers are not those it had when it was wrapped."""
        items, answers = np.asarray(self._backbone.items(), dtype=np.float32), self._probed()
        # The last digits may hang on how many threads there are; dropout or a step of training moves more.
        if not np.array_equal(items, self.items) or not np.allclose(answers, self._answers, rtol=1e-4, atol=1e-5):
            raise ConfigError(f"{type(self._backbone).__name__} is not frozen: two equal passes differ; put it into eval mode before it is aligned")

    def _probed(self) -> FloatArray:
        """The states of some histories."""
        known = np.flatnonzero(self.scorable)[:_PROBES].astype(np.int64)
        return self.states(np.arange(len(known), dtype=np.int64), [known[: length + 1] for length in range(len(known))])
