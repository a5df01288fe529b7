"""`recsys embed`: the item embeddings alone, and what they would take."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from recsys.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.config import RunConfig
    from pipelines.embed_plan import Estimate
    from recsys.artifacts.artifact import Artifact

EXECUTORS = ("local", "ray")


def embed(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, for example experiments/configs/ml-100k/default.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one value of the config; may be given often. Example: --set seed=1")
    ] = None,
    executor: Annotated[str | None, typer.Option(metavar="local|ray", help="Who embeds; else as the config says.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="A running Ray cluster, such as 10.0.0.5:6379; without it Ray is started here.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Encoder actors; each loads the model.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say how many items are new and what they would take; load no model, compute nothing.")] = False,
    retry_quarantined: Annotated[bool, typer.Option("--retry-quarantined", help="Give the encoders again what they refused in earlier runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of tables.")] = False,
) -> None:
    """Compute the item embeddings that the cache lacks. Runs the stages that it needs first; a killed run resumes by the same command.

    Items that cannot be embedded are listed with their reasons in quarantine.csv of each table.
    """
    from pipelines.config import RunConfig
    from pipelines.run import run_plan

    loaded = _with_runtime(RunConfig.read(config, overrides), executor, ray_address, workers)
    if not loaded.embed:
        raise ConfigError(f"{config}: `embed:` is empty; there is nothing to compute")
    console = Console(stderr=as_json)
    if plan:
        from pipelines.embed_plan import estimate

        _show_plan(estimate(loaded, console, quiet=as_json), console, as_json)
        return
    result = run_plan(loaded, console, quiet=as_json, last_stage="embed", retry_quarantined=retry_quarantined)
    tables = {name: artifact for name, artifact in result.artifacts.items() if artifact.manifest.kind == "embed"}
    ran = {name: artifact for name, artifact in tables.items() if name in result.ran}
    if ran:
        _track(loaded, ran)
    if as_json:
        _print({**result.to_json(), "tables": {name: _facts(artifact) for name, artifact in tables.items()}})
    else:
        _show(tables, console)


def _with_runtime(config: RunConfig, executor: str | None, ray_address: str | None, workers: int | None) -> RunConfig:
    if executor is not None and executor not in EXECUTORS:
        raise ConfigError(f"--executor {executor}: unknown; known: {', '.join(EXECUTORS)}")
    if ray_address is not None and executor == "local":
        raise ConfigError("--ray-address belongs to --executor ray")
    given = {"executor": executor or ("ray" if ray_address else None), "ray_address": ray_address, "workers": workers}
    return config.model_copy(update={"runtime": config.runtime.model_copy(update={name: value for name, value in given.items() if value is not None})})


def _facts(artifact: Artifact) -> dict[str, Any]:
    from pipelines.embed import QUARANTINE

    shown = {name: value for name, value in artifact.manifest.metadata.items() if name not in ("config", "step", "version")}
    return {**shown, "folder": str(artifact.path), "quarantine_file": str(artifact.path / QUARANTINE)}


def _show(tables: dict[str, Artifact], console: Console) -> None:
    table = Table(
        "encoder", "items", "computed", "cached", "without vector", "quarantined", "items/s", "dimension", title="Item embeddings", title_justify="left"
    )
    for artifact in tables.values():
        facts = _facts(artifact)
        numbers = (f"{facts[name]:,}" for name in ("items", "computed", "cached", "items_without_vector", "quarantined", "items_per_second", "dimension"))
        table.add_row(facts["name"], *numbers)
    console.print(table)
    for artifact in tables.values():
        if artifact.manifest.metadata["quarantined"]:
            console.print(f"quarantined: {_facts(artifact)['quarantine_file']}", soft_wrap=True, highlight=False, markup=False)


def _show_plan(estimates: list[Estimate], console: Console, as_json: bool) -> None:
    if as_json:
        _print([one.to_json() for one in estimates])
        return
    table = Table("encoder", "items", "new", "cached", "quarantined", "time", "storage", title="What `recsys embed` would do", title_justify="left")
    for one in estimates:
        table.add_row(one.name, f"{one.items:,}", f"{one.new:,}", f"{one.cached:,}", f"{one.quarantined:,}", one.time, one.storage)
    console.print(table)


def _track(config: RunConfig, tables: dict[str, Artifact]) -> None:
    """One run in the tracking server, from this process alone."""
    from pipelines.embed import figures
    from recsys.tracking import Tracker, default_tracking_uri

    with Tracker(default_tracking_uri(config.runtime.root.absolute()), "embedding").run(f"embed {config.name}") as run:
        run.log_params({"runtime": config.runtime.model_dump(mode="json"), "embed": {one.name: one.model_dump(mode="json") for one in config.embed}})
        for artifact in tables.values():
            run.log_metrics(figures(artifact))


def _print(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
