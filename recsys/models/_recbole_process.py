"""`RecBoleProcess`: a handle on the subprocess that runs RecBole, with time-out, captured stderr and no orphans."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from recsys.errors import NonFiniteError, RecsysError

WORKER = Path(__file__).with_name("_recbole_worker.py")
ROOT = WORKER.parents[2]
"""The folder that holds `recsys`, as this process sees it."""
STDERR_LINES = 15
"""Last lines of the worker's stderr in an error message."""


class NotFiniteAnswerError(NonFiniteError):
    """The worker's words; who asked knows the names. row: of the queries (of the validation cases while training).
    item: RecBole's row.  epoch: 0 after training."""

    def __init__(self, row: int, item: int, value: str, epoch: int) -> None:
        super().__init__(f"the RecBole model scored {value} for row {row} of the queries, row {item} of its items")
        self.row, self.item, self.value, self.epoch = row, item, value, epoch


class RecBoleProcess:
    """A worker on one folder, started at once, ended by `close`, by garbage collection, or with its parent.

    silence_seconds: the worker is killed when it says nothing for so long (start, an epoch, an answer).
    """

    def __init__(self, folder: Path, *, threads: int, silence_seconds: float) -> None:
        self._silence = silence_seconds
        self._lock = threading.Lock()
        self._scratch = tempfile.TemporaryDirectory(prefix="recsys-recbole-")
        scratch = Path(self._scratch.name)
        self._stderr = scratch / "stderr.txt"
        count = str(threads)
        environment = os.environ | {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "CUDA_VISIBLE_DEVICES": ""}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                # -P: the worker's own folder stays out of its import path. RecBole's warnings would crowd out what went wrong.
                [sys.executable, "-P", "-W", "ignore", str(WORKER), str(folder.absolute()), str(scratch), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=scratch,
                env=environment,
                start_new_session=True,
            )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(self._process, self._lines), daemon=True).start()
        self._end = weakref.finalize(self, _end, self._process, self._scratch)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Mapping[str, Any], on_message: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
        """Send one request and wait for its answer; what the worker says before goes to `on_message`.

        Raises:
            RecsysError: the worker ended, or said nothing for `silence_seconds`; with its last lines.
            NotFiniteAnswerError: the model scored NaN or +inf.
        """
        with self._lock:
            if not self._end.alive:
                raise RecsysError("this RecBole process was closed")
            try:
                assert self._process.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # the answer that does not come tells more
                    self._process.stdin.write(json.dumps(dict(request)).encode() + b"\n")
                    self._process.stdin.flush()
                while True:
                    message = self._next(request["do"])
                    if "done" in message:
                        done: dict[str, Any] = message["done"]
                        return done
                    if "not_finite" in message:
                        raise NotFiniteAnswerError(**message["not_finite"])
                    if on_message is not None:
                        on_message(message)
            except BaseException:
                # Also on Ctrl-C or an error in the callback: a half-read answer would be taken for the next one.
                self.close()
                raise

    def compute(self, what: str, users: torch.Tensor, offsets: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """`what` is "scores" or "states"; int64 (B,), (B + 1,) and (E,) in RecBole's rows -> float32 (B, ...)."""
        question, answer = (Path(self._scratch.name) / f"{name}.safetensors" for name in ("question", "answer"))
        save_file({"users": users, "offsets": offsets, "items": items}, question)
        self.ask({"do": what, "question": str(question), "answer": str(answer)})
        values = load_file(answer)["values"]
        answer.unlink()
        return values

    def close(self) -> None:
        self._end()

    def _next(self, what: str) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=self._silence)
        except queue.Empty:
            raise RecsysError(
                f"RecBole said nothing for {self._silence:g} s (asked to {what}) and was stopped; raise silence_seconds{self._last_lines()}"
            ) from None
        if not line:
            code = self._process.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise RecsysError(f"the RecBole process {how} (asked to {what}){self._last_lines()}")
        message: dict[str, Any] = json.loads(line)
        return message

    def _last_lines(self) -> str:
        lines = self._stderr.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-STDERR_LINES:]
        return ("; its last lines:\n" + "\n".join(lines)) if lines else ""


def _read(process: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(b"")


def _end(process: subprocess.Popen[bytes], scratch: tempfile.TemporaryDirectory[str]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    scratch.cleanup()
