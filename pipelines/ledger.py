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

from pipelines.stage import Inputs, Step, Surroundings
from recsys.artifacts.artifact import MANIFEST, Artifact, Manifest, write_artifact
from recsys.errors import ConfigError, RetryableError


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
        variant = step.name.partition(":")[2]
        return self.root / "artifacts" / step.stage / (f"{variant}-{key[:16]}" if variant else key[:16])

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
        artifact = write_artifact(
            self.path_of(step, key),
            manifest,
            lambda folder: {
                **step.run(step.config, inputs, folder, replace(surroundings, scratch=scratch)),
                "stage_seconds": round(time.monotonic() - started, 3),
            },
        )
        shutil.rmtree(scratch)
        self._append(step, key, time.monotonic() - started)
        return artifact

    def forget(self, status: Status) -> None:
        """Remove a step's artifact, so that it runs again."""
        shutil.rmtree(self.path_of(status.step, status.key), ignore_errors=True)

    def _append(self, step: Step, key: str, seconds: float) -> None:
        line = {
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "step": step.name,
            "key": key,
            "seconds": round(seconds, 3),
            "process": os.getpid(),
        }
        with (self.root / "ledger.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

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
