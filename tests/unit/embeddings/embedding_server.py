"""A server of the /v1/embeddings protocol on a port of this machine: a real encoder's vectors, and faults on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from recsys.embeddings.content import of_texts
from recsys.embeddings.encoder import Encoder

KEY = "sk-secret"
Answer = dict[str, Any]


@dataclass
class Server:
    """faults: one a request, taken from the front: a status with headers, or a change of the answer; then all is well."""

    url: str
    encoder: Encoder
    faults: list[tuple[int, dict[str, str]] | Callable[[Answer], Answer]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    slow: float = 0.0
    most_at_once: int = 0
    _now: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: dict[str, Any], key: str | None) -> tuple[int, dict[str, str], Answer]:
        with self.lock:
            self.requests.append(request)
            self.times.append(time.monotonic())
            self.keys.append(key)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            fault = self.faults.pop(0) if self.faults else None
        time.sleep(self.slow)
        with self.lock:
            self._now -= 1
        if isinstance(fault, tuple):
            return *fault, {"error": {"message": f"no, {key}"}}
        vectors = self.encoder.encode(of_texts(request["input"]))
        data = [{"object": "embedding", "index": number, "embedding": vector.tolist()} for number, vector in enumerate(vectors)]
        answer: Answer = {"object": "list", "data": data, "model": request["model"], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
        return 200, {}, fault(answer) if fault else answer


@contextmanager
def serving(encoder: Encoder) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, answer = (404, {}, {}) if self.path != "/v1/embeddings" else server.answer(request, self.headers.get("Authorization"))
            body = json.dumps(answer).encode()
            try:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # the client did not wait

        def log_message(self, *arguments: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{listening.server_port}/v1", encoder)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
