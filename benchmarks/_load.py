"""Open-loop load: requests are sent when their time has come, whether those before were answered or not.

A time runs from the moment when the request was due until its answer is whole: a server that stalls is charged for all that had to wait
(no coordinated omission). Arrivals are a Poisson process. Answers are compared by checksum: one request under one model version has one answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import selectors
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_VERSION = re.compile(rb'"version":\s*"([^"]*)"')


class Connection(asyncio.Protocol):
    """One request at a time, HTTP/1.1 with keep-alive."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._body_at, self._length = -1, 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("closed before the answer"))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """(status, body)."""
        assert self.transport is not None
        self._buffer.clear()
        self._body_at = -1
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._body_at < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            length = re.search(rb"content-length: (\d+)", head)
            if length is None:
                self._fail(ValueError(f"an answer without a length: {head[:200]!r}"))
                return
            self._body_at, self._length = end + 4, int(length[1])
        if len(self._buffer) >= self._body_at + self._length and self._answer is not None and not self._answer.done():
            self._answer.set_result((int(self._buffer[9:12]), bytes(self._buffer[self._body_at :])))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class Load:
    def __init__(self, port: int, requests: list[tuple[str, bytes]], connections: int) -> None:
        self._port = port
        self._requests = [_raw(path, body) for path, body in requests]
        self._idle: list[Connection] = []
        self._room = asyncio.Semaphore(connections)
        self.seconds: list[float] = []
        self.late: list[float] = []
        self.failures: dict[str, int] = {}
        self.answers: dict[tuple[int, bytes], set[int]] = {}
        self.seen: list[tuple[float, bytes]] = []

    async def run(self, rate: float, seconds: float, seed: int) -> None:
        arrivals = random.Random(seed)
        chosen = random.Random(seed + 1)
        start = time.perf_counter() + 0.2
        due, tasks = start, set()
        while due < start + seconds:
            while (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            self.late.append(time.perf_counter() - due)
            task = asyncio.create_task(self._one(due, chosen.randrange(len(self._requests))))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += arrivals.expovariate(rate)
        if tasks:
            await asyncio.wait(tasks, timeout=60)
            for task in tasks:
                task.cancel()
                self._failed("no answer within 60 s of the end")

    async def _one(self, due: float, number: int) -> None:
        async with self._room:
            try:
                connection = self._idle.pop() if self._idle else await self._open()
                while connection.transport is None:
                    connection = self._idle.pop() if self._idle else await self._open()
                status, body = await connection.ask(self._requests[number])
            except (OSError, ValueError) as error:
                self._failed(type(error).__name__)
                return
            self.seconds.append(time.perf_counter() - due)
            self._idle.append(connection)
        if status != 200:
            self._failed(str(status))
            return
        found = _VERSION.search(body)
        version = found[1] if found else b""
        self.answers.setdefault((number, version), set()).add(zlib.crc32(body))
        if not self.seen or self.seen[-1][1] != version:
            self.seen.append((time.time(), version))

    async def _open(self) -> Connection:
        _, protocol = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self._port)
        return protocol

    def _failed(self, what: str) -> None:
        self.failures[what] = self.failures.get(what, 0) + 1

    def figures(self) -> dict[str, Any]:
        times = 1000 * np.array(self.seconds or [float("nan")])
        quantiles = {f"p{q}_ms": round(float(np.quantile(times, q / 100)), 2) for q in (50, 95, 99)}
        return {
            "answers": len(self.seconds),
            "failed": sum(self.failures.values()),
            **quantiles,
            "max_ms": round(float(times.max()), 2),
            "client_late_p99_ms": round(1000 * float(np.quantile(self.late or [0.0], 0.99)), 2),
            "mixed": sum(len(found) > 1 for found in self.answers.values()),
            "failures": self.failures,
            "versions": sorted({version.decode() for _, version in self.answers}),
            "changes": [(at, version.decode()) for at, version in self.seen],
        }


def pin(pid: int, *, server: bool) -> None:
    """The load runs on the last core, a server on the others: neither is pushed aside by the other. Nothing where that cannot be told or there is one."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(pid, (cores[:-1] if server else cores[-1:]) or cores)


def drive(port: int, requests: str, rate: float, seconds: float, connections: int = 256, seed: int = 0) -> Iterator[dict[str, Any]]:
    """For `benchmarks._child`. requests: file with a JSON list of [path, body]. Yields the figures once."""
    pin(0, server=False)
    listed = [(path, json.dumps(body).encode()) for path, body in json.loads(Path(requests).read_text(encoding="utf-8"))]

    async def run() -> Load:
        load = Load(port, listed, connections)
        await load.run(rate, seconds, seed)
        return load

    # epoll waits in whole milliseconds, select in microseconds: requests leave when they are due without a loop that spins for it, on cores that
    # the server needs.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        yield runner.run(run()).figures()


def _raw(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
