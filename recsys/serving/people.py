"""`People`: from a user_id or a history to a vector, and what to do instead when there is no time or no feature store."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.errors import NonFiniteError, RetryableError, UnknownIdError
from recsys.serving.breaker import Breaker
from recsys.serving.config import ServiceConfig
from recsys.serving.features import OnlineFeatures
from recsys.serving.memory_features import MemoryFeatures
from recsys.serving.metrics import Metrics
from recsys.serving.person import Person, Source, Step
from recsys.serving.recommender import Recommender
from recsys.serving.stopwatch import Stopwatch
from recsys.serving.user_states import UserState, UserStates
from recsys.types import UNKNOWN_NUM, FloatArray, IntArray, Queries

STORE_FAILS, NO_TIME, DAMAGED = "feature store", "deadline", "model"
_NOTHING: IntArray = np.zeros(0, dtype=np.int64)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """user_id or history, one of the two."""

    user_id: str | None
    history: Sequence[str] | None


@dataclass(frozen=True)
class _Known:
    """The history of somebody, as the model reads it."""

    source: Source
    nums: IntArray
    ignored: tuple[str, ...]


class People:
    """features: None means the histories of publishing time and what came in since (`memory`)."""

    def __init__(self, features: OnlineFeatures | None, config: ServiceConfig, metrics: Metrics) -> None:
        self.features, self.memory = features, MemoryFeatures()
        self._config, self._metrics = config, metrics
        self._states = UserStates(config.cached_users)
        self._breaker = Breaker()
        self._row_seconds = 0.0

    def find(self, model: Recommender, asked: Asked, deadline: float, watch: Stopwatch) -> Person:
        """deadline: by `time.perf_counter`.

        Raises:
            UnknownIdError: nobody knows the user.
            RetryableError: the feature store fails, and nothing else is allowed.
        """
        found = self.find_all(model, [asked], deadline, watch)[0]
        if isinstance(found, Exception):
            raise found
        return found

    def find_all(self, model: Recommender, asked: Sequence[Asked], deadline: float, watch: Stopwatch) -> list[Person | UnknownIdError]:
        """One for each of `asked`; new vectors are made in one pass."""
        with watch.step("history"):
            known = [self._known(model, one) for one in asked]
        with watch.step("encode"):
            found = self._with_vectors(model, asked, known, deadline)
        for one in found:
            if isinstance(one, Person):
                self._metrics.answers.labels(one.step).inc()
                self._metrics.ignored.inc(len(one.ignored))
                if one.reason is not None:
                    self._metrics.fallbacks.labels(one.step, one.reason).inc()
            else:
                self._metrics.unknown_users.inc()
        return found

    def history(self, model: Recommender, user_id: str) -> tuple[Source, list[str]]:
        """Where it comes from, and item_ids, oldest first. Raises UnknownIdError, RetryableError."""
        if self.features is not None:
            events = self.ask(user_id)
            if events is None:
                error = UnknownIdError("user_id", [user_id], 0)
                error.args = (f"unknown user_id: {user_id!r}; the feature store does not hold it; for someone never seen send history",)
                raise error
            return "online", events
        since = self.memory.events(user_id)
        if not since:
            return "snapshot", model.user_history(user_id)
        try:
            return "memory", [*model.user_history(user_id), *since]
        except UnknownIdError:
            return "memory", since

    def ask(self, user_id: str) -> list[str] | None:
        """What the feature store says of a user.

        Raises:
            RetryableError: it fails.
        """
        assert self.features is not None
        features = self.features
        try:
            return self._breaker.call(lambda: features.history(user_id))
        except Exception as error:
            # Whatever a store raises: the client can only come back later. A score without the history would be made up.
            if not isinstance(error, RetryableError):
                _log.exception("the feature store failed")
            raise RetryableError("the feature store does not answer; try again, or send history instead of user_id") from error

    def _known(self, model: Recommender, asked: Asked) -> _Known | UnknownIdError | RetryableError:
        source: Source
        if asked.history is not None:
            source, events = "request", list(asked.history)
        else:
            assert asked.user_id is not None
            try:
                source, events = self.history(model, asked.user_id)
            except (UnknownIdError, RetryableError) as error:
                if isinstance(error, RetryableError) and not self._config.degrade:
                    raise
                return error
        nums = model.catalog.items.nums_or_unknown(events)
        known = nums != UNKNOWN_NUM
        if known.all():
            return _Known(source, nums, ())
        ignored = tuple(dict.fromkeys(item for item, is_known in zip(events, known.tolist(), strict=True) if not is_known))
        return _Known(source, nums[known], ignored)

    def _with_vectors(
        self, model: Recommender, asked: Sequence[Asked], known: Sequence[_Known | UnknownIdError | RetryableError], deadline: float
    ) -> list[Person | UnknownIdError]:
        found: dict[int, Person | UnknownIdError] = {}
        todo: list[int] = []
        space = model.bundle.space_id
        for row, (one, its) in enumerate(zip(asked, known, strict=True)):
            if isinstance(its, UnknownIdError):
                found[row] = its
            elif isinstance(its, RetryableError):
                found[row] = self._instead(model, one, None, STORE_FAILS)
            elif one.user_id is not None and (kept := self._states.of_history(space, one.user_id, its.nums)) is not None:
                found[row] = _person(one, its, "fused", kept.vector)
            else:
                todo.append(row)
        for row, person in zip(todo, self._encoded(model, [(asked[row], known[row]) for row in todo], deadline), strict=True):
            found[row] = person
        return [found[row] for row in range(len(asked))]

    def _encoded(self, model: Recommender, pairs: Sequence[tuple[Asked, object]], deadline: float) -> list[Person]:
        rows = [(one, its) for one, its in pairs if isinstance(its, _Known)]
        if not rows:
            return []
        if self._config.degrade and self._row_seconds * len(rows) > deadline - time.perf_counter():
            # One slow pass must not turn the model off for good.
            self._row_seconds *= 0.9
            return [self._instead(model, one, its, NO_TIME) for one, its in rows]
        started = time.perf_counter()
        try:
            vectors = model.represent(Queries(np.full(len(rows), UNKNOWN_NUM), [its.nums for _, its in rows]))
        except NonFiniteError:
            if not self._config.degrade:
                raise
            _log.exception("the model is damaged")
            return [self._instead(model, one, its, DAMAGED) for one, its in rows]
        self._row_seconds += 0.1 * ((time.perf_counter() - started) / len(rows) - self._row_seconds)
        return [self._kept(model, one, its, vectors[row : row + 1]) for row, (one, its) in enumerate(rows)]

    def _kept(self, model: Recommender, asked: Asked, known: _Known, vector: FloatArray) -> Person:
        if asked.user_id is not None:
            self._states.keep(model.bundle.space_id, asked.user_id, UserState(known.nums, vector))
        return _person(asked, known, "fused", vector)

    def _instead(self, model: Recommender, asked: Asked, known: _Known | None, reason: str) -> Person:
        """The user's last vector, else popularity."""
        last = None if asked.user_id is None else self._states.last(model.bundle.space_id, asked.user_id)
        if known is None:
            known = _Known("none", _NOTHING if last is None else last.history, ())
        if last is None:
            return _person(asked, known, "popularity", None, reason)
        return _person(asked, known, "cached_vector", last.vector, reason)


def _person(asked: Asked, known: _Known, step: Step, vector: FloatArray | None, reason: str | None = None) -> Person:
    return Person(asked.user_id, known.source, known.nums, known.ignored, step, vector, reason)
