"""A real HTTP server of the chat protocol on this machine, which fails as it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[["Handler", dict[str, Any]], None]


def completion(text: str | None, *, finish: str = "stop", usage: bool = True, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish} | more
    return {"id": "1", "choices": [choice]} | ({"usage": {"prompt_tokens": 10, "completion_tokens": 4}} if usage else {})


def says(status: int, body: object, **headers: str) -> Reply:
    """A whole answer; text is sent as it is, all else as JSON."""

    def reply(handler: Handler, request: dict[str, Any]) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return reply


def echo(handler: Handler, request: dict[str, Any]) -> None:
    """The user's text in capitals."""
    says(200, completion(request["messages"][-1]["content"].upper()))(handler, request)


def sleeps(seconds: float) -> Reply:
    """Counts who waits at once, and no longer once the answer goes out: its reader may ask again before the handler has ended."""

    def reply(handler: Handler, request: dict[str, Any]) -> None:
        server = handler.server
        with server.lock:
            server.waiting += 1
            server.most_at_once = max(server.most_at_once, server.waiting)
        time.sleep(seconds)
        with server.lock:
            server.waiting -= 1
        echo(handler, request)

    return reply


def breaks_off(handler: Handler, request: dict[str, Any]) -> None:
    """Half of the promised body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')


def hangs_up(handler: Handler, request: dict[str, Any]) -> None:
    """Not a byte."""


def drips(handler: Handler, request: dict[str, Any]) -> None:
    """A byte now and then, for ever."""
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.02)


class Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.requests.append((self.path, dict(self.headers), request, time.monotonic()))
            reply = server.plan.pop(0) if server.plan else server.otherwise
        with suppress(OSError):
            reply(self, request)
        self.close_connection = True

    def log_message(self, *arguments: object) -> None: ...


class ChatServer(ThreadingHTTPServer):
    """`plan`: what the next requests get, in the order they come; `otherwise`: what all others get."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.requests: list[tuple[str, dict[str, str], dict[str, Any], float]] = []
        self.plan: list[Reply] = []
        self.otherwise: Reply = echo
        self.waiting = self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def running() -> Iterator[ChatServer]:
    with ChatServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
