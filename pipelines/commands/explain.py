"""`recsys explain`: ranked labels and an explanation of each item of a catalogue."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

SHOWN = 5


def explain(
    dataset: Annotated[str, typer.Argument(metavar="DATASET|CONFIG", help="A data set with experiments/configs/<dataset>/explain.yaml, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one value of the config; may be given often. Example: --set sample=64")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say how many prompts are new and what they would take; load no model.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of tables.")] = False,
) -> None:
    """Let a language model say of each item which label fits, and who would enjoy it and why; kept as a table.

    Answers are stored as they come: a killed run resumes by the same command, a second run costs nothing.
    """
    from pipelines.explain import ExplainFile, load, plan_of, run_steps
    from pipelines.progress import RichReporter, SilentReporter

    config = ExplainFile.of_argument(dataset, overrides)
    console = Console(stderr=as_json)
    reporter = SilentReporter() if as_json else RichReporter(console)
    if plan:
        _show_plan(plan_of(config, reporter), console, as_json)
        return
    artifact, ran = run_steps(config, reporter)
    facts = {name: value for name, value in artifact.manifest.metadata.items() if name not in ("config", "step", "version")}
    frame = load(artifact)
    if as_json:
        _print({"ran": ran, "folder": str(artifact.path), **facts})
        return
    table = Table("item", "labels", "explanation", title=f"{facts['explained']:,} of {facts['items']:,} items explained", title_justify="left")
    for row in frame.filter(frame["status"] == "ok").head(SHOWN).iter_rows(named=True):
        table.add_row(row["item_id"], ", ".join(row["labels"]), row["explanation"])
    console.print(table)
    told = [f"{facts['computed']:,} answers computed, {facts['cached']:,} cached", f"{facts['retried']:,} asked twice"]
    if ran and facts["seconds"]:
        told.append(f"{facts['seconds']:,.0f} s, {facts['tokens_per_second']:,.0f} tokens/s")
    console.print(" · ".join(told), highlight=False)
    console.print(f"table {artifact.path}/explanations.parquet", soft_wrap=True, highlight=False, markup=False)


def _show_plan(entries: list[dict[str, Any]], console: Console, as_json: bool) -> None:
    if as_json:
        _print(entries)
        return
    table = Table("generator", "prompts", "cached", "new", "time", title="What `recsys explain` would do", title_justify="left")
    for entry in entries:
        seconds = entry["seconds"]
        needed = "none" if not entry["new"] else "unknown until the first run" if seconds is None else f"about {seconds / 60:,.1f} min, and loading the model"
        table.add_row(entry["name"], *(f"{entry[name]:,}" for name in ("prompts", "cached", "new")), needed)
    console.print(table)


def _print(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
