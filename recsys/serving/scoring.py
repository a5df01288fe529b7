"""`Scoring`: requests to answers, without a web framework. The HTTP service, Ray Serve and MLflow all answer through it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recsys.errors import DataError, RecsysError, UnknownIdError
from recsys.serving.config import ServiceConfig
from recsys.serving.exploration import explored, propensities
from recsys.serving.features import OnlineFeatures
from recsys.serving.live import LiveModel
from recsys.serving.metrics import Metrics
from recsys.serving.people import Asked, People
from recsys.serving.person import Person
from recsys.serving.reasons import nearest_of_history
from recsys.serving.recommender import Recommender
from recsys.serving.request_log import RequestLog
from recsys.serving.schemas import PersonalRequest, RecommendBatchRequest, RecommendRequest, ScoreBatchRequest, ScoreRequest
from recsys.serving.stopwatch import Stopwatch


@dataclass(frozen=True)
class Call:
    """One call of a client. arrived, deadline: by `time.perf_counter`."""

    deadline: float
    arrived: float = field(default_factory=time.perf_counter)
    request_id: str = ""

    @classmethod
    def within(cls, seconds: float) -> Call:
        return cls(deadline=time.perf_counter() + seconds)


class Scoring:
    """features: user histories; None means those of publishing time, with what came in since. Thread-safe."""

    def __init__(
        self,
        live: LiveModel,
        features: OnlineFeatures | None = None,
        config: ServiceConfig | None = None,
        metrics: Metrics | None = None,
        *,
        log: RequestLog | None = None,
        seed: int | None = None,
    ) -> None:
        self.live, self.config, self.metrics = live, config or ServiceConfig(), metrics or Metrics()
        self.people = People(features, self.config, self.metrics)
        self._log, self._random = log, np.random.default_rng(seed)

    def call(self) -> Call:
        """For callers that state no deadline."""
        return Call.within(self.config.deadline_ms / 1000)

    def head(self, model: Recommender) -> dict[str, Any]:
        """What every answer begins with."""
        return {"model": {"name": model.name, "version": model.version}, "spaces": model.spaces}

    def score(self, request: ScoreRequest, call: Call) -> dict[str, Any]:
        """A `ScoreAnswer`, as plain values. Raises UnknownIdError, RetryableError."""
        model, watch = self.live.pinned(), Stopwatch(self.metrics, call.arrived)
        person = self.people.find(model, _asked(request), call.deadline, watch)
        answer = {**self.head(model), **self._scores(model, person, request, watch)}
        return {**answer, "timing_ms": watch.milliseconds()} if request.timing else answer

    def recommend(self, request: RecommendRequest, call: Call) -> dict[str, Any]:
        """A `RecommendAnswer`, as plain values. Raises UnknownIdError, DataError (a category that no item has), RetryableError."""
        model, watch = self.live.pinned(), Stopwatch(self.metrics, call.arrived)
        person = self.people.find(model, _asked(request), call.deadline, watch)
        answer = {**self.head(model), **self._items(model, person, request, watch, call)}
        return {**answer, "timing_ms": watch.milliseconds()} if request.timing else answer

    def score_batch(self, batch: ScoreBatchRequest, call: Call) -> dict[str, Any]:
        """A `ScoreBatchAnswer`: all of one model; a request that fails does not fail the others."""
        pairs, limit = sum(len(request.candidates) for request in batch.requests), self.config.limits.batch_pairs
        if pairs > limit:
            raise DataError(f"{pairs} candidates in one batch, at most {limit} are taken; send several batches")
        model, watch = self.live.pinned(), Stopwatch(self.metrics, call.arrived)
        people = self.people.find_all(model, [_asked(request) for request in batch.requests], call.deadline, watch)
        answers = [
            _failed(person) if isinstance(person, Exception) else self._scores(model, person, request, watch)
            for person, request in zip(people, batch.requests, strict=True)
        ]
        return {**self.head(model), "answers": answers}

    def recommend_batch(self, batch: RecommendBatchRequest, call: Call) -> dict[str, Any]:
        """A `RecommendBatchAnswer`; see `score_batch`."""
        model, watch = self.live.pinned(), Stopwatch(self.metrics, call.arrived)
        people = self.people.find_all(model, [_asked(request) for request in batch.requests], call.deadline, watch)
        answers = []
        for person, request in zip(people, batch.requests, strict=True):
            try:
                answers.append(_failed(person) if isinstance(person, Exception) else self._items(model, person, request, watch, call))
            except DataError as error:
                answers.append(_failed(error))
        return {**self.head(model), "answers": answers}

    def probe(self) -> None:
        """Loads lazy parts. Raises NonFiniteError: the model is damaged."""
        model = self.live.pinned()
        model.score(history=[], items=list(model.catalog.items.ids[:1]))

    def _scores(self, model: Recommender, person: Person, request: ScoreRequest, watch: Stopwatch) -> dict[str, Any]:
        with watch.step("score"):
            nums, usable, reasons = model.candidates(request.candidates)
            scores: list[float | None]
            if usable.all():
                chosen, scores = nums, person.scores(model, nums)[0].tolist()
            else:
                chosen, values = nums[usable], np.zeros(len(nums), dtype=np.float32)
                if len(chosen):
                    values[usable] = person.scores(model, chosen)[0]
                scores = [value if ok else None for value, ok in zip(values.tolist(), usable.tolist(), strict=True)]
                for reason in reasons:
                    if reason is not None:
                        self.metrics.unscored.labels(reason).inc()
            self.metrics.cold.inc(int(np.count_nonzero(model.state.popularity[chosen] == 0)))
        told = [{"item_id": i, "score": s, "reason": r} for i, s, r in zip(request.candidates, scores, reasons, strict=True)]
        return {**person.said(), "scores": told}

    def _items(self, model: Recommender, person: Person, request: RecommendRequest, watch: Stopwatch, call: Call) -> dict[str, Any]:
        with watch.step("score"):
            scores = person.scores(model)
        with watch.step("rank"):
            hidden = model.history_nums(request.exclude)
            if request.exclude_seen:
                hidden = np.concatenate([person.history, hidden])
            wanted = request.categories
            allowed = None if wanted is None else model.state.categories.allowed(wanted.allow, wanted.deny)
            explores = person.step == "fused" and self.config.explore > 0
            values, found, kept = model.best(scores, 2 * request.k if explores else request.k, [hidden], allowed)
            values, found = values[kept], found[kept]
            drawn = explores and bool(self._random.random() < self.config.explore)
            places = explored(len(found), request.k, self._random) if drawn else np.arange(min(request.k, len(found)))
            chances = propensities(places, len(found), self.config.explore if explores else 0.0)
            values, found = values[places], found[places]
        with watch.step("explain"):
            shares = {} if person.vector is None or not len(found) else model.shares(person.vector, found)
            because = nearest_of_history(model, person.history, found) if request.explain else None
        ids, titles, told = model.catalog.items.ids, model.state.titles, model.bundle.explanations
        items = []
        for place, (num, value) in enumerate(zip(found.tolist(), values.tolist(), strict=True)):
            item = {"item_id": ids[num], "title": titles[num], "score": value, "rank": place + 1}
            item["shares"] = {signal: float(share[0, place]) for signal, share in shares.items()}
            if because is not None:
                item |= {"because": because[place], "reason": told.get(ids[num])}
            items.append(item)
        if self._log is not None:
            self._log.add(call.request_id, model.name, model.version, person, items, chances, drawn)
        return {**person.said(), "items": items, "explored": drawn}


def _asked(request: PersonalRequest) -> Asked:
    return Asked(request.user_id, request.history)


def _failed(error: RecsysError) -> dict[str, Any]:
    return {"status": 404 if isinstance(error, UnknownIdError) else 422, "detail": str(error)}
