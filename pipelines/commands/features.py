"""`recsys features`: the feature store beside the models."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from recsys.errors import ConfigError

if TYPE_CHECKING:
    from feature_store.verify import Checked

features = typer.Typer(no_args_is_help=True, help="The feature store: definitions, online values, checks.")
Root = Annotated[Path, typer.Option(help="Folder of artifacts, registry and feature store.")]
Moment = Annotated[datetime, typer.Argument(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="UTC.")]


@features.command()
def apply(root: Root = Path(".recsys")) -> None:
    """Bring the definitions of the live version to those of the code; values stay as they are."""
    from feature_store import definitions
    from feature_store.online_store import quiet

    store = _live(root)
    with quiet():
        store.apply(definitions.ALL)
    Console().print(f"applied {len(definitions.ALL)} objects", highlight=False)


@features.command()
def materialize(start: Moment, end: Moment, root: Root = Path(".recsys")) -> None:
    """Write what the offline tables hold between two moments into the online store; live events stay on top."""
    _materialized(root, lambda store: store.materialize(start_date=_utc(start), end_date=_utc(end)))


@features.command(name="materialize-incremental")
def materialize_incremental(end: Moment, root: Root = Path(".recsys")) -> None:
    """The same from the end of the last time on."""
    _materialized(root, lambda store: store.materialize_incremental(end_date=_utc(end)))


@features.command()
def verify(
    name: Annotated[str, typer.Option("--model", help="Name of the model whose champion serves.")] = "recsys-ml100k",
    root: Root = Path(".recsys"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of a table.")] = False,
) -> None:
    """Compare definitions, online values and embedding spaces with what was published. Exit code 1 when something differs."""
    from feature_store.verify import verify as check
    from pipelines.features import features_root
    from pipelines.services import existing_tracker
    from recsys.serving.bundle import load_bundle

    tracker = existing_tracker(root.absolute())
    champion = tracker.champion(name) if tracker else None
    space = load_bundle(tracker.resolve(f"models:/{name}/{champion.version}").path).space_id if tracker and champion else None
    found = check(features_root(root), space)
    _show(found, as_json)
    if any(each.problem for each in found):
        raise typer.Exit(1)


def _show(found: list[Checked], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps([asdict(each) for each in found], indent=2, ensure_ascii=False) + "\n")
        return
    table = Table("", "check", "found", "what to do")
    for each in found:
        table.add_row("[red]✗[/]" if each.problem else "[green]✓[/]", each.name, each.found, each.problem)
    Console().print(table)


def _materialized(root: Path, write: Any) -> None:
    from feature_store.journal import Journal
    from feature_store.online_store import quiet
    from feature_store.publish import current_version, replay
    from pipelines.features import features_root

    store, where = _live(root), features_root(root.absolute())
    journal = Journal(where)
    with journal.lock():
        with quiet():
            write(store)
        replay(where / "versions" / (current_version(where) or ""), journal.events())
    Console().print("materialised", highlight=False)


def _live(root: Path) -> Any:
    from feature_store.online_store import open_store
    from feature_store.publish import current_version
    from pipelines.features import features_root

    where = features_root(root.absolute())
    version = current_version(where)
    if version is None:
        raise ConfigError(f"{where}: no features are published; run the pipeline first, or give another --root")
    return open_store(where / "versions" / version)


def _utc(moment: datetime) -> datetime:
    from datetime import UTC

    return moment.replace(tzinfo=UTC)
