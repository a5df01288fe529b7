"""What stands before every route, as plain ASGI: the framework's own middleware base costs about as much as a score.

From the outside in: `Observed` (metrics, log, request id), `Guarded` (host, token, rate), `BodyLimit` (size, nesting).
"""

from __future__ import annotations

import hashlib
import hmac
import math
import random
import secrets
import time
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.serving.access_log import log_request
from recsys.serving.metrics import Metrics
from recsys.serving.nesting import deeper_than
from recsys.serving.problems import problem
from recsys.serving.rate import Rates

__all__ = ["BodyLimitMiddleware", "GuardMiddleware", "Metrics", "ObservedMiddleware"]

REQUEST_ID, ARRIVED = "recsys.request_id", "recsys.arrived"
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/page/app.js", "/page/style.css"})
"""Answered without a token: probes, and a page that holds nothing until its reader gives the token."""


class ObservedMiddleware:
    """Gives each request an id (header X-Request-Id of the answer) and a time of arrival, counts it and logs it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        # No secret: they need to differ, and not to ask the kernel each time.
        self._ids = random.Random(secrets.randbits(128))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        request_id = f"{self._ids.getrandbits(64):016x}"
        scope[ARRIVED], scope[REQUEST_ID] = started, request_id

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            # The template, not the path: labels must not grow with what clients ask for.
            route = getattr(scope.get("route"), "path", "unmatched")
            seconds = time.perf_counter() - started
            self._metrics.latency.labels(route).observe(seconds)
            self._metrics.requests.labels(route, str(status)).inc()
            log_request(scope, route, status, seconds, request_id)


class GuardMiddleware:
    """hosts: values of the Host header (without port) that are answered; empty: any. token: of the Authorization header; None: none is asked for."""

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str], token: str | None, rates: Rates | None, rejected: Callable[[str], None]) -> None:
        self._app, self._hosts, self._rates, self._rejected = app, frozenset(hosts), rates, rejected
        self._token = None if token is None else _digest(token.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self._hosts and _host(headers.get(b"host", b"")) not in self._hosts:
            self._rejected("host")
            await problem(400, "the Host header names another service; this one answers to " + ", ".join(sorted(self._hosts)))(scope, receive, send)
            return
        if self._token is not None and scope["path"] not in OPEN_PATHS:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            # Digests are of one length, and comparing them takes one time.
            if scheme.lower() != b"bearer" or not hmac.compare_digest(_digest(given.strip()), self._token):
                self._rejected("token")
                refusal = problem(401, "send the header Authorization: Bearer TOKEN", headers={"WWW-Authenticate": "Bearer"})
                await refusal(scope, receive, send)
                return
        if self._rates is not None and scope["path"] not in OPEN_PATHS:
            wait = self._rates.wait((scope.get("client") or ("",))[0])
            if wait > 0:
                self._rejected("rate")
                seconds = max(1, math.ceil(wait))
                refusal = problem(429, f"too many requests from this address; come back in {seconds} s", headers={"Retry-After": str(seconds)})
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BodyLimitMiddleware:
    """Reads the body up to the limit before the app sees it; a stated length is not believed."""

    def __init__(self, app: ASGIApp, limit: int, nesting: int) -> None:
        self._app, self._limit, self._nesting = app, limit, nesting

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
        if deeper_than(body, self._nesting):
            await problem(422, f"the body is nested deeper than {self._nesting} brackets")(scope, receive, send)
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, replay, send)


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


def _host(value: bytes) -> str:
    """Without the port; `[::1]:80` keeps its brackets. What is no host and port stays whole, and is no name that is answered."""
    name = value.decode("latin-1").lower()
    host, _, port = name.rpartition(":") if not name.endswith("]") else (name, "", "")
    return host if host and (not port or port.isdigit()) else name
