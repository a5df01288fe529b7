"""`Service`: the parts that one process serves with, and how a route gets its work done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from fastapi import Request
from starlette.responses import Response

from recsys.errors import DataError
from recsys.serving.access_log import NOTES
from recsys.serving.config import ServiceConfig
from recsys.serving.lane import BusyError, Lane
from recsys.serving.live import LiveModel
from recsys.serving.metrics import Metrics
from recsys.serving.middleware import ARRIVED, REQUEST_ID
from recsys.serving.overlay import Overlay
from recsys.serving.problems import rendered
from recsys.serving.scoring import Call, Scoring

DEADLINE = "x-deadline-ms"
WRITE_SECONDS = 180.0
"""A new item may have to wait until a language model is loaded."""


@dataclass(frozen=True)
class Service:
    """lane: for scores. writes: for what may wait for a disk, a store or an encoder. draining: the process was told to end. starts, stops: what
    runs beside the requests."""

    scoring: Scoring
    overlay: Overlay
    lane: Lane
    writes: Lane
    draining: Event = field(default_factory=Event)
    starts: list[Callable[[], None]] = field(default_factory=list)
    stops: list[Callable[[], None]] = field(default_factory=list)

    @property
    def live(self) -> LiveModel:
        return self.scoring.live

    @property
    def config(self) -> ServiceConfig:
        return self.scoring.config

    @property
    def metrics(self) -> Metrics:
        return self.scoring.metrics

    def start(self) -> None:
        for start in self.starts:
            start()

    def close(self) -> None:
        """What was taken in is answered first."""
        self.lane.close()
        self.writes.close()
        for stop in self.stops:
            stop()

    async def answer(self, http: Request, work: Callable[[Call], Mapping[str, Any]], *, lane: Lane | None = None, seconds: float | None = None) -> Response:
        """`work` in a worker of `lane`, which also renders what it gives. seconds: the deadline where the caller states none."""
        call = self._call(http, seconds)
        lane = lane or self.lane

        def make() -> tuple[bytes, Mapping[str, Any]]:
            values = work(call)
            return rendered(values), values

        self.metrics.waiting.inc()
        try:
            body, values = await lane.run(make, deadline=call.deadline)
        except BusyError as error:
            self.metrics.rejected.labels(error.reason).inc()
            raise
        finally:
            self.metrics.waiting.dec()
        http.scope[NOTES] = {"version": values["model"]["version"], **({"step": values["step"]} if "step" in values else {})}
        return Response(body, media_type="application/json")

    def note_user(self, http: Request, user_id: str | None) -> None:
        """For the log, where it was asked for."""
        if self.config.ids_in_logs and user_id is not None:
            http.scope.setdefault(NOTES, {})["user_id"] = user_id

    def _call(self, http: Request, seconds: float | None) -> Call:
        scope, stated = http.scope, http.headers.get(DEADLINE)
        arrived = scope.get(ARRIVED) or time.perf_counter()
        seconds = self.config.deadline_ms / 1000 if seconds is None else seconds
        if stated is not None:
            try:
                milliseconds = float(stated)
            except ValueError:
                milliseconds = math.nan
            if not 0 < milliseconds <= 600_000:
                raise DataError(f"header {DEADLINE}: expected milliseconds, above 0 and up to 600000, got {stated[:50]!r}")
            seconds = milliseconds / 1000
        return Call(deadline=arrived + seconds, arrived=arrived, request_id=scope.get(REQUEST_ID, ""))
