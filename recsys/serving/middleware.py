"""Body limit and metrics, as plain ASGI: the framework's own middleware base costs about as much as a score."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.serving.problems import problem

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Metrics:
    """One registry an app: two apps in one process do not share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.latency = Histogram("recsys_request_seconds", "Time from request to answer", ["route"], buckets=BUCKETS, registry=self.registry)
        self.requests = Counter("recsys_requests", "Answers", ["route", "status"], registry=self.registry)
        self.unscored = Counter("recsys_candidates_unscored", "Candidates answered with null", ["reason"], registry=self.registry)
        self.ignored = Counter("recsys_history_items_ignored", "History items that the model does not know", registry=self.registry)
        self.model = Gauge("recsys_model_info", "The model that answers; always 1", ["name", "version"], registry=self.registry)


class MetricsMiddleware:
    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            # The template, not the path: labels must not grow with what clients ask for.
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.latency.labels(route).observe(time.perf_counter() - started)
            self._metrics.requests.labels(route, str(status)).inc()


class BodyLimitMiddleware:
    """Reads the body up to the limit before the app sees it; a stated length is not believed."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self._app(scope, receive, send)
            return
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._limit:
                await problem(413, f"the body is larger than {self._limit} bytes")(scope, receive, send)
                return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, replay, send)
