"""Work in a process of its own: memory and threads are its own, and a cap ends it. JSON lines come out, short answers go in.

`python -m benchmarks._child benchmarks.scaling:point '{...}'` calls the function and prints what it yields.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).resolve().parent / ".venv-peers" / "bin" / "python"
"""Made by `make bench-peers`; RecTools lives there."""


def own(function: str, settings: dict[str, Any]) -> list[str]:
    """The command that runs `module:function` of ours."""
    return [sys.executable, "-m", "benchmarks._child", function, json.dumps(settings)]


def peer(script: str, settings: dict[str, Any]) -> list[str]:
    """The command that runs a script of this folder in the peers' environment."""
    return [str(PEERS), str(Path(__file__).with_name(script)), json.dumps(settings)]


class Child:
    """Iterate for the JSON objects that the process writes; lines that are none are passed over.

    capped: the cap killed it, and what it wrote until then is all there is.

    Raises (while iterating):
        RuntimeError: it ended with an error of its own; with its last lines.
    """

    def __init__(self, command: list[str], *, cap: float, threads: int) -> None:
        self.capped = False
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed in __exit__)
        count = str(threads)
        environment = os.environ | {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "POLARS_MAX_THREADS": count}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, bufsize=1, cwd=REPOSITORY, env=environment
        )
        self._timer = threading.Timer(cap, self._end)
        self._timer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                yield json.loads(line)
        if self._process.wait() and not self.capped:
            self._errors.seek(0)
            raise RuntimeError(f"a process of the benchmark ended with exit code {self._process.returncode}: {self._errors.read()[-3000:]}")

    def answer(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def _end(self) -> None:
        self.capped = True
        self._process.kill()


def main(function: str, settings: str) -> None:
    module, name = function.split(":")
    for message in getattr(importlib.import_module(module), name)(**json.loads(settings)):
        print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
