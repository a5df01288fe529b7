"""`recsys fine-tune`: a text encoder learns from the training interactions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pipelines.fine_tune import FineTuneConfig
    from recsys.artifacts.artifact import Artifact


def fine_tune(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, for example experiments/configs/amazon_beauty/fine_tune.yaml")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one value of the config; may be given often. Example: --set seed=1")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of tables.")] = False,
) -> None:
    """Fine-tune a text encoder on items that training brings together; gives an adapter for `embed: {adapter: ...}`.

    A killed training resumes by the same command.
    """
    from pipelines.fine_tune import FineTuneConfig, run_steps
    from pipelines.progress import RichReporter, SilentReporter

    loaded = FineTuneConfig.of_file(config, overrides)
    console = Console(stderr=as_json)
    artifact, ran = run_steps(loaded, SilentReporter() if as_json else RichReporter(console))
    if ran:
        _track(loaded, artifact)
    facts = artifact.manifest.metadata
    if as_json:
        document = {"adapter": str(artifact.path), "split_hash": facts["split_hash"], "layers": facts["layers"], "tuning": facts["tuning"], **facts["figures"]}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return
    table = Table("figure", "value", title=f"{facts['encoder']}, last {facts['layers']} layers, seed {facts['seed']}", title_justify="left")
    for name, value in facts["figures"].items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    console.print(table)
    console.print(f"adapter {artifact.path}", soft_wrap=True, highlight=False, markup=False)


def _track(config: FineTuneConfig, artifact: Artifact) -> None:
    from recsys.artifacts.atomic import read_json
    from recsys.tracking import Tracker, default_tracking_uri

    facts = artifact.manifest.metadata
    figures: dict[str, Any] = facts["figures"]
    tags = {"split_hash": str(facts["split_hash"]), "code_version": artifact.manifest.code_version, "adapter_key": artifact.key}
    with Tracker(default_tracking_uri(config.root.absolute()), "fine-tuning").run(f"{facts['encoder']} seed {facts['seed']}", tags) as run:
        run.log_params({"fine_tuning": config.fine_tuning.model_dump(mode="json"), "split": config.split.model_dump(mode="json"), "seed": config.seed})
        run.log_metrics({name: float(value) for name, value in figures.items() if value is not None})
        run.log_history([{f"train/{key}": value for key, value in row.items() if key != "epoch"} for row in read_json(artifact.file("history.json"))])
