"""`EncoderProcess`: texts of new items become vectors in a process of its own, so that no request waits for a language model.

It is started by the first item, has a low priority and one thread, and ends with the service, however that ends: its standard input closes.
One JSON line goes in (config and texts), one comes out (space and vectors, or an error).
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

from recsys import errors
from recsys.errors import RecsysError, RetryableError
from recsys.types import FloatArray

LOADER = "recsys.serving.item_encoder:load_plain_encoder"
TIMEOUT_SECONDS = 120.0
NICENESS = 10


class EncoderProcess:
    """An `ItemEncoder`. loader: "module:function" of an `EncoderLoader`. timeout: seconds for one call, loading included. Thread-safe."""

    def __init__(self, loader: str = LOADER, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self._loader, self._timeout = loader, timeout
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        """None while it is not running."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def encode(self, config: Mapping[str, Any], texts: Sequence[str]) -> tuple[str, FloatArray]:
        """See `ItemEncoder`.

        Raises:
            RetryableError: the process died or took too long; the next call starts another.
            RecsysError: what the encoder raised.
        """
        question = {"config": dict(config), "texts": list(texts)}
        with self._lock:
            used = self._process is not None
            answer = self._ask(question)
            if answer is None and used:
                # It may have died since the last call, and not of this one.
                answer = self._ask(question)
        if answer is None:
            raise RetryableError("the encoder's process ended before it answered; the log has the reason, try again")
        if "error" in answer:
            kind = getattr(errors, answer["error"], None)
            if isinstance(kind, type) and issubclass(kind, RecsysError) and kind is not errors.UnknownIdError:
                raise kind(answer["message"])
            raise RetryableError(f"the encoder failed: {answer['error']}: {answer['message']}")
        values = np.frombuffer(base64.b64decode(answer["vectors"]), dtype="<f4").astype(np.float32)
        return answer["space"], values.reshape(answer["shape"])

    def close(self) -> None:
        with self._lock:
            self._end()

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """None: the process ended before it answered. Raises RetryableError: it took too long."""
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._timeout, end)
        timer.start()
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        if line.endswith("\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._end()
        if late.is_set():
            raise RetryableError(f"the encoder took over {self._timeout:g} seconds and was ended; try again")
        return None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
            command = [sys.executable, "-m", "recsys.serving.encoder_process", self._loader]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment)
        return self._process

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # a question that nobody read is still in the pipe
                    stream.close()
        self._process = None


def serve_lines(loader: str, questions: IO[str], answers: IO[str]) -> None:
    """The other end: until `questions` is closed."""
    from recsys.serving.item_encoder import InProcessEncoder

    module, name = loader.split(":")
    encoder = InProcessEncoder(getattr(importlib.import_module(module), name))
    for line in questions:
        question = json.loads(line)
        answer: dict[str, Any]
        try:
            space, vectors = encoder.encode(question["config"], question["texts"])
            data = base64.b64encode(np.ascontiguousarray(vectors, dtype="<f4").tobytes()).decode()
            answer = {"space": space, "shape": list(vectors.shape), "vectors": data}
        except Exception as error:
            # Whatever it is, the service lives on and the caller is told.
            answer = {"error": type(error).__name__, "message": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main(loader: str) -> None:
    os.nice(NICENESS)
    # Libraries print; only answers may stand on the pipe.
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve_lines(loader, sys.stdin, pipe)


if __name__ == "__main__":
    main(sys.argv[1])
