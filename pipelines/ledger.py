"""The ledger: which steps are done, where their artifacts lie, and what each run did."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.stage import Inputs, Step, Surroundings
from recsys.artifacts.artifact import MANIFEST, Artifact, Manifest, write_artifact
from recsys.artifacts.atomic import crash_point
from recsys.errors import ConfigError, RetryableError

LEDGER = "ledger.jsonl"


@dataclass(frozen=True)
class Status:
    """cached: the artifact exists. reason: why the step would run, or "" ."""

    step: Step
    key: str
    cached: bool
    reason: str


class Ledger:
    """Artifacts lie under `root/artifacts/<stage>/<variant->key[:16]`; a folder that exists is finished."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def path_of(self, step: Step, key: str) -> Path:
        return self._folder(step.name, key)

    def _folder(self, name: str, key: str) -> Path:
        stage, _, variant = name.partition(":")
        return self.root / "artifacts" / stage / (f"{variant}-{key[:16]}" if variant else key[:16])

    def survey(self, plan: Iterable[Step]) -> list[Status]:
        """Keys and cache state of every step, in order; nothing is run."""
        statuses: list[Status] = []
        by_name: dict[str, Status] = {}
        for step in plan:
            key = step.key({role: by_name[name].key for role, name in step.inputs.items()})
            folder = self.path_of(step, key)
            cached = (folder / MANIFEST).is_file()
            reason = "" if cached else self._why(step, [name for name in step.inputs.values() if not by_name[name].cached])
            by_name[step.name] = Status(step, key, cached, reason)
            statuses.append(by_name[step.name])
        return statuses

    def _why(self, step: Step, stale_inputs: list[str]) -> str:
        if stale_inputs:
            return f"{', '.join(stale_inputs)} will run"
        variant = step.name.partition(":")[2]
        folder = self.root / "artifacts" / step.stage
        earlier = [p for p in folder.glob(f"{variant}-*" if variant else "*") if (p / MANIFEST).is_file()] if folder.is_dir() else []
        if any((self.root / "scratch").glob(f"{step.name.replace(':', '-')}-*")):
            return "interrupted: resumes"
        return "config, code version or data changed" if earlier else "never run here"

    def open(self, status: Status) -> Artifact:
        return Artifact.open(self.path_of(status.step, status.key), kind=status.step.stage)

    def run(self, status: Status, inputs: Inputs, surroundings: Surroundings) -> Artifact:
        """Run one step and write its artifact; checkpoints of an interrupted try are found again in its scratch folder."""
        step, key = status.step, status.key
        scratch = self.root / "scratch" / f"{step.name.replace(':', '-')}-{key[:16]}"
        scratch.mkdir(parents=True, exist_ok=True)
        manifest = Manifest(
            kind=step.stage,
            key=key,
            config_hash=step.config.digest(),
            inputs={role: artifact.key for role, artifact in inputs.items()},
            metadata={"step": step.name, "version": step.version, "config": step.config.model_dump(mode="json")},
            code_version=code_version(),
        )
        started = time.monotonic()
        self._append("started", step.name, key)
        artifact = write_artifact(
            self.path_of(step, key),
            manifest,
            lambda folder: {
                **step.run(step.config, inputs, folder, replace(surroundings, scratch=scratch)),
                "stage_seconds": round(time.monotonic() - started, 3),
            },
        )
        self._append("finished", step.name, key, seconds=round(time.monotonic() - started, 3))
        shutil.rmtree(scratch)
        return artifact

    def forget(self, status: Status) -> None:
        """Remove a step's artifact, so that it runs again."""
        shutil.rmtree(self.path_of(status.step, status.key), ignore_errors=True)

    def entries(self) -> list[dict[str, Any]]:
        """What happened here, oldest first: event ("started", "finished", "interrupted", "recovered"), step, key, time. A line that a crash
        tore is left out."""
        try:
            lines = (self.root / LEDGER).read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        # Before events were told apart, a line was a step that had finished.
        return [{"event": "finished", **entry} for entry in found]

    def reconcile(self) -> None:
        """Tell the end of steps whose process did not live to tell it: "recovered" where the artifact is there, else "interrupted"."""
        open_steps: dict[tuple[str, str], None] = {}
        for entry in self.entries():
            place = entry["step"], entry["key"]
            if entry["event"] == "started":
                open_steps[place] = None
            else:
                open_steps.pop(place, None)
        for name, key in open_steps:
            done = (self._folder(name, key) / MANIFEST).is_file()
            self._append("recovered" if done else "interrupted", name, key)

    def _append(self, event: str, step: str, key: str, **facts: Any) -> None:
        """One write, so that lines of two processes do not mix."""
        line = {"event": event, "time": datetime.now(UTC).isoformat(timespec="seconds"), "step": step, "key": key, "process": os.getpid(), **facts}
        crash_point(f"ledger {event}")
        with (self.root / LEDGER).open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            torn = end > 0 and file.read(1) != b"\n"
            file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        crash_point(f"ledger told {event}")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One run at a time per root. The lock dies with its process. Raises RetryableError when another run holds it."""
        import fcntl

        self.root.mkdir(parents=True, exist_ok=True)
        if not os.access(self.root, os.W_OK):
            raise ConfigError(f"{self.root}: not writable; set runtime.root to another folder")
        with (self.root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RetryableError(f"{self.root}: another run is at work here; wait for it, or give this one another runtime.root") from None
            for leftover in self.root.glob("artifacts/*/.*.tmp"):
                shutil.rmtree(leftover, ignore_errors=True)
            self.reconcile()
            yield


def code_version() -> str:
    """The commit of a checkout, with "-dirty" where its code was changed since; for readers, never part of a key."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "recsys", "pipelines", "feature_store")
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
