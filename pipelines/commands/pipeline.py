"""`recsys pipeline nightly`: the run that a schedule starts."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from recsys.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.nightly_config import NightlyConfig

EXIT_STOPPED = 143
DEFAULT_CONFIG = Path("experiments/configs/ml-100k/nightly.yaml")

pipeline = typer.Typer(no_args_is_help=True, help="Scheduled runs.")


@pipeline.callback()
def _pipelines() -> None:
    """Scheduled runs."""


@pipeline.command()
def nightly(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; docs/nightly.md explains it.")] = DEFAULT_CONFIG,
    as_of: Annotated[str | None, typer.Option(metavar="DATE", help="The newest day that is read: 2026-11-22, today or yesterday (UTC).")] = None,
    backfill: Annotated[
        tuple[str, str] | None, typer.Option(metavar="FROM TO", help="All nights between these days that have files, in order, in place of --as-of.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and why. Nothing is written.")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one value of the config; may be given often.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document a night on standard output instead of tables.")] = False,
) -> None:
    """Ingest a day, check it, embed what is new, train, compare with the champion on the newest window, gate, publish.

    Run again, it goes on where it ended, or finds nothing to do. Exit codes: 0 done, whatever the gate decided; 64 bad config; 65 bad
    data, or stopped by the checks; 75 try again (another run is at work, a stage ran out of time); 143 stopped by SIGTERM.
    """
    from pipelines.attempts import Stopped
    from pipelines.nightly import backfill as nights
    from pipelines.nightly import run_night, show_night
    from pipelines.nightly_config import NightlyConfig

    if (as_of is None) == (backfill is None):
        raise ConfigError("give either --as-of DATE or --backfill FROM TO")
    loaded = NightlyConfig.read(config, overrides)
    console = Console(stderr=as_json)
    days = [day_of(text) for text in (backfill or (as_of, as_of)) if text is not None]
    if days[1] < days[0]:
        raise ConfigError(f"--backfill {days[0]} {days[1]}: the first day is after the last")
    if dry_run:
        _show_plan(loaded, days[-1], console, as_json)
        return
    try:
        for result in nights(loaded, *days, console, quiet=as_json) if backfill else [run_night(loaded, days[0], console, quiet=as_json)]:
            if as_json:
                sys.stdout.write(json.dumps(result.to_json(), ensure_ascii=False) + "\n")
                sys.stdout.flush()
            else:
                show_night(result, console)
    except Stopped as stopped:
        Console(stderr=True).print(f"[yellow]{stopped}[/]")
        raise typer.Exit(EXIT_STOPPED) from None


@pipeline.command()
def nights(
    name: Annotated[str, typer.Argument(help="Name of the model.")] = "recsys-ml100k",
    root: Annotated[Path, typer.Option(help="Folder of artifacts, registry and feature store.")] = Path(".recsys"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of a table.")] = False,
) -> None:
    """How each night ended, and why."""
    from dataclasses import asdict

    from rich.table import Table

    from pipelines.night_record import NightBook

    found = NightBook(root.absolute(), name).nights()
    if as_json:
        sys.stdout.write(json.dumps([asdict(night) for night in found], indent=2, ensure_ascii=False) + "\n")
        return
    table = Table("night", "state", "outcome", "champion before", "version", "seconds", "why")
    for night in found:
        seconds = sum(each["seconds"] for each in night.tries)
        table.add_row(night.day, night.state, night.outcome, night.champion or "none", night.version or "", f"{seconds:.0f}", night.reason)
    Console().print(table)


def day_of(text: str) -> date:
    """Raises ConfigError."""
    today = datetime.now(UTC).date()
    named = {"today": today, "yesterday": today - timedelta(days=1)}
    if text in named:
        return named[text]
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no day; expected a date such as 2026-11-22, today or yesterday") from None


def _show_plan(config: NightlyConfig, day: date, console: Console, as_json: bool) -> None:
    from pipelines.nightly import survey_night
    from pipelines.run import show_plan

    statuses = survey_night(config, day)
    if as_json:
        listed = [{"step": s.step.name, "key": s.key, "cached": s.cached, "reason": s.reason} for s in statuses]
        sys.stdout.write(json.dumps(listed, indent=2) + "\n")
    else:
        show_plan(statuses, console)
