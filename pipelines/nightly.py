"""One night, or many of them: the plan walked under a lock, with a record that says what happened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from pipelines.attempts import Attempts, Stopped, stoppable
from pipelines.contest import Champion
from pipelines.ledger import Ledger, Status
from pipelines.night_record import DONE, FAILED, STOPPED, Night, NightBook
from pipelines.nightly_config import NightlyConfig
from pipelines.nightly_plan import as_of, night_plan, tables_of
from pipelines.notify import notify
from pipelines.progress import Reporter, RichReporter, SilentReporter
from pipelines.publish import NIGHT_TAG, TRAINED_UNTIL_TAG
from pipelines.run import executor_of, services_of, walk
from pipelines.services import existing_tracker
from pipelines.stage import Step, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.data.sources.daily import DailySource
from recsys.errors import DataError
from recsys.tracking import REPLACED_TAG, RegisteredVersion, Tracker

OUTCOMES = {"promote": "promoted", "hold": "held", "reject": "rejected"}


@dataclass(frozen=True)
class NightResult:
    night: Night
    ran: tuple[str, ...]
    facts: dict[str, Any]
    """Of the published version: version, alias, decision, gate, parity, latency."""

    def to_json(self) -> dict[str, Any]:
        night = self.night
        return {
            "as_of": night.day,
            "outcome": night.outcome,
            "reason": night.reason,
            "champion_before": night.champion,
            "ran": list(self.ran),
            "artifacts": night.artifacts,
            "model": {k: self.facts[k] for k in ("name", "version", "alias", "decision", "parity_max_difference", "latency_p99_ms") if k in self.facts},
        }


def run_night(config: NightlyConfig, day: date, console: Console, *, quiet: bool = False) -> NightResult:
    """Everything from the day's files to the gate's decision. Again: what is done is not done again.

    Raises:
        DataError: the day's files are missing or stopped by the checks.  RetryableError: another run holds the lock, or a stage failed
            in a way that may pass, after all its tries.  Stopped: SIGTERM.
    """
    import torch

    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    root = config.runtime.root.absolute()
    reporter: Reporter = SilentReporter() if quiet else RichReporter(console)
    book, ledger = NightBook(root, config.name), Ledger(root)
    with ledger.lock(), stoppable():
        before = book.read(day)
        champion = _champion(root, config, day, before)
        night = book.begin(day, config.digest(), champion.version if champion else None, before)
        tries = list(night.tries)
        try:
            with executor_of(config.runtime) as executor:
                surroundings = Surroundings(reporter, executor, root / "embeddings", root)

                def told(step: str, number: int, seconds: float, error: str) -> None:
                    tries.append({"step": step, "try": number, "seconds": round(seconds, 3), "error": error})
                    book.write(replace(night, tries=tries))

                plan = _plan(config, day, champion, _earlier(book, night))
                artifacts, ran = walk(plan, ledger, surroundings, attempt=Attempts(config.attempts, reporter, told))
        except BaseException as error:
            state = STOPPED if isinstance(error, Stopped | KeyboardInterrupt) else FAILED
            ended = book.end(replace(night, tries=tries), state, state, str(error) or type(error).__name__)
            notify(config.notify, _document(config, ended), reporter)
            raise
        facts = dict(artifacts["publish"].manifest.metadata)
        paths = {name: str(artifact.path) for name, artifact in artifacts.items()}
        outcome = OUTCOMES[facts["decision"]]
        ended = book.end(replace(night, tries=tries), DONE, outcome, facts["gate"], artifacts=paths, version=facts["version"])
        if ran:
            notify(config.notify, _document(config, ended), reporter)
    return NightResult(ended, tuple(ran), facts)


def backfill(config: NightlyConfig, first: date, last: date, console: Console, *, quiet: bool = False) -> Iterable[NightResult]:
    """The nights from `first` to `last` that have files, in order; days without are named. Raises DataError: none has."""
    source = config.data.source
    assert isinstance(source, DailySource)
    landed = set(source.days())
    wanted = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    days = [day for day in wanted if day in landed]
    if not days:
        raise DataError(f"{source.folder / 'events'}: no file of a day from {first} to {last}")
    if missing := [str(day) for day in wanted if day not in landed]:
        console.print(f"[yellow]no events of {', '.join(missing)}: left out[/]", highlight=False)
    for day in days:
        yield run_night(config, day, console, quiet=quiet)


def survey_night(config: NightlyConfig, day: date) -> list[Status]:
    """What a run would do; nothing is written. Raises DataError: the day's files are missing."""
    root = config.runtime.root.absolute()
    source = as_of(config.data, day).source
    assert isinstance(source, DailySource)
    if source.days()[-1] != day:
        source.read_day(day)
    book = NightBook(root, config.name)
    before = book.read(day)
    champion = _champion(root, config, day, before)
    last = book.last_done(day)
    night = before if before and before.config == config.digest() else Night(str(day), "", None, last.day if last else None)
    return Ledger(root).survey(_plan(config, day, champion, _earlier(book, night)))


def show_night(result: NightResult, console: Console) -> None:
    night, facts = result.night, result.facts
    colour = {"promoted": "green", "held": "yellow", "rejected": "red"}[night.outcome]
    console.print(f"[bold]{night.day}[/]  [{colour}]{night.outcome}[/]  version {facts['version']} is {facts['alias']}; before: {night.champion or 'none'}")
    console.print(f"  {escape(night.reason)}", highlight=False, soft_wrap=True)
    if not result.ran:
        console.print("  nothing was left to do", highlight=False)


def _plan(config: NightlyConfig, day: date, champion: Champion | None, earlier: dict[str, Artifact]) -> list[Step]:
    return night_plan(config, day, services_of(config.runtime), champion, earlier)


def _champion(root: Path, config: NightlyConfig, day: date, before: Night | None) -> Champion | None:
    """The version to beat. A repeated night compares with the one that it compared with: its own version may be the champion by now."""
    tracker = existing_tracker(root)
    now = tracker.champion(config.name) if tracker else None
    if before is not None and before.config == config.digest() and tracker is not None:
        own = now is not None and now.tags.get(NIGHT_TAG) == str(day) and now.tags.get(REPLACED_TAG) == before.champion
        if before.state == DONE or own:
            now = tracker.version(config.name, before.champion) if before.champion is not None else None
    return None if now is None or tracker is None else _as_champion(tracker, now)


def _as_champion(tracker: Tracker, version: RegisteredVersion) -> Champion:
    until = version.tags.get(TRAINED_UNTIL_TAG)
    uri = f"models:/{version.name}/{version.version}"
    return Champion(version.name, version.version, version.bundle_key, int(until) if until else None, lambda: tracker.resolve(uri).path)


def _earlier(book: NightBook, night: Night) -> dict[str, Artifact]:
    """Tables of the night before; empty where their folders were cleared away."""
    done = book.read(date.fromisoformat(night.earlier)) if night.earlier else None
    if done is None:
        return {}
    wanted = {name: Path(path) for name, path in done.artifacts.items() if name == "ingest" or name.startswith("embed:")}
    if not wanted or not all(path.is_dir() for path in wanted.values()):
        return {}
    return tables_of({name: Artifact.open(path) for name, path in wanted.items()})


def _document(config: NightlyConfig, night: Night) -> dict[str, Any]:
    return {"name": config.name, "as_of": night.day, "outcome": night.outcome, "reason": night.reason, "champion": night.champion, "version": night.version}
