"""What a stage is: a pure function from a config and input artifacts to a folder, keyed by the hash of all it depends on."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.executors import Executor
from pipelines.progress import Reporter
from recsys.artifacts.artifact import Artifact
from recsys.config import Config, digest_of

RESULT_LIBRARIES = ("torch", "transformers")
"""Libraries whose version can move a result: part of every key."""


@dataclass(frozen=True)
class Surroundings:
    """Where a stage runs. Decides place and speed, never the result.

    embedding_cache: root of the content-addressed cache.  scratch: the step's own folder for checkpoints, kept until
    the step has finished.
    """

    reporter: Reporter
    executor: Executor
    embedding_cache: Path
    scratch: Path
    retry_quarantined: bool = False
    """Give the encoders again what they refused in earlier runs."""


Inputs = Mapping[str, Artifact]
Run = Callable[[Any, Inputs, Path, Surroundings], Mapping[str, Any]]


@dataclass(frozen=True)
class Step:
    """One box of the plan.

    name: unique, "stage" or "stage:variant".  version: raised in the stage's file when its result changes.
    inputs: role -> name of the step that makes it.  run(config, inputs, folder, surroundings) -> metadata.
    """

    name: str
    version: int
    config: Config
    run: Run
    inputs: Mapping[str, str] = field(default_factory=dict)
    raw_digest: Callable[[], str] | None = None
    """Hash of files that are no artifact: of `ingest` the raw tables, of `embed` the pictures."""

    @property
    def stage(self) -> str:
        return self.name.split(":")[0]

    def key(self, input_keys: Mapping[str, str]) -> str:
        """sha256 over version, config, input keys and library versions. `input_keys`: role -> key."""
        libraries = {name: importlib.metadata.version(name) for name in RESULT_LIBRARIES}
        parts = [self.name, self.version, self.config.digest(), dict(input_keys), libraries]
        return digest_of([*parts, self.raw_digest()] if self.raw_digest else parts)
