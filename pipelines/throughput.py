"""What earlier jobs of an encoder took, kept beside its vectors: the base of estimates."""

from __future__ import annotations

from pathlib import Path

from recsys.artifacts.atomic import read_json, write_json
from recsys.config import Config
from recsys.errors import ConfigError

FILE = "throughput.json"
KEPT = 50


class Job(Config):
    """One finished job. rate: items a second once the model was loaded; 0: too few to say, then `items` and `seconds` are all there is."""

    finished: str
    executor: str
    workers: int
    items: int
    tokens: int
    seconds: float
    rate: float

    @property
    def items_per_second(self) -> float:
        return self.rate or (self.items / self.seconds if self.seconds else 0.0)


def jobs_of(folder: Path) -> list[Job]:
    """The oldest first. An unreadable file is none: estimates are no results."""
    try:
        return [Job.parse(job) for job in read_json(folder / FILE)]
    except (OSError, ValueError, TypeError, ConfigError):
        return []


def note_job(folder: Path, job: Job) -> None:
    write_json(folder / FILE, [one.model_dump(mode="json") for one in [*jobs_of(folder), job][-KEPT:]])


def expected_rate(folder: Path, executor: str, workers: int) -> float | None:
    """Items a second: of the last job that ran alike, else of the last one. None before the first."""
    jobs = [job for job in jobs_of(folder) if job.items_per_second > 0]
    alike = [job for job in jobs if (job.executor, job.workers) == (executor, workers)]
    return (alike or jobs)[-1].items_per_second if jobs else None
