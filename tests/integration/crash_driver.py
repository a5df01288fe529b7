"""Runs nights in forked processes, so that each may be killed and none pays for the imports again: `python -m tests.integration.crash_driver`.

Reads one JSON request a line: {"folder": shop, "day": number, "seen": file or null}; with a file, the process kills itself at the first crash
point whose name is not in it, and adds it. Answers with the exit status, a signal as a negative number. The process that forks imports
everything and uses nothing: no thread may be lost in the fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import feast.infra.offline_stores.dask  # noqa: F401
import mlflow.pyfunc
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
import sqlalchemy.orm
import uvicorn  # noqa: F401
from rich.console import Console

import recsys.serving.app  # noqa: F401
from feature_store import definitions  # noqa: F401
from pipelines import nightly, publish  # noqa: F401
from pipelines.nightly_config import NightlyConfig
from recsys.artifacts.atomic import arm_crash
from recsys.errors import RecsysError
from tests.integration import days


def config() -> NightlyConfig:
    """Relative folders: two shops have the same keys."""
    values = days.config(Path())
    values["publish"]["gate"] |= {"tolerance": 0.9, "cold_tolerance": 0.9, "latency_ms": None}
    return NightlyConfig.parse(values)


def night(folder: Path, number: int, seen: Path | None) -> int:
    os.chdir(folder)
    known = set(seen.read_text().splitlines()) if seen is not None and seen.exists() else set()

    def die_at_a_new_one(name: str) -> None:
        assert seen is not None
        if name not in known:
            with seen.open("a") as file:
                file.write(name + "\n")
            os.kill(os.getpid(), signal.SIGKILL)

    arm_crash(die_at_a_new_one if seen is not None else None)
    try:
        nightly.run_night(config(), days.day(number), Console(stderr=True), quiet=True)
    except RecsysError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


def main() -> None:
    sqlalchemy.orm.configure_mappers()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            code = 70
            try:
                code = night(Path(request["folder"]), request["day"], Path(request["seen"]) if request["seen"] else None)
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
