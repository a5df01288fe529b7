"""`recsys lite-llm`: a language model over item vectors, and the ways it is compared with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def lite_llm(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, for example experiments/configs/ml-100k/lite_llm.yaml")],
    model: Annotated[list[str] | None, typer.Option(help="Only this model of the file; may be given often.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds 0 to this number less one, in place of the file's.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Override one value; may be given often. Example: --set models.lite_free.settings.layers=30"),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one training.")] = 2,
    folder: Annotated[Path | None, typer.Option(help="Folder of the records; default: the board of the data set.")] = None,
    force: Annotated[bool, typer.Option(help="Run again what is done already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of a table.")] = False,
) -> None:
    """Train and measure Lite-LLM4Rec: item vectors -> the first layers of a language model -> scores of the whole catalogue at once.

    The models of a file differ in how they read (`reader`: vectors, or text: the history's titles in words) and how they answer
    (`head`: free, a learned column an item; tied, which reaches new items; generative, beam search over titles). Records go to the board:
    `recsys board DATASET` then shows them beside all others. A finished run is left alone, a killed one resumes by the same command.
    """
    from pipelines.lite_llm import run_models
    from recsys.evaluation.run_record import read_run

    paths = run_models(
        config, model or (), Console(stderr=as_json), seeds=seeds, threads=threads, folder=folder, overrides=overrides or (), force=force
    )  # fmt: skip
    records = [read_run(path) for path in paths]
    if as_json:
        shown = [{"path": str(path), **record.model_dump(mode="json", exclude={"curve", "config"})} for path, record in zip(paths, records, strict=True)]
        sys.stdout.write(json.dumps(shown, indent=2, ensure_ascii=False) + "\n")
        return
    table = Table("model", "seed", "recall@10", "ndcg@10", "parameters", "train s", "ms a user", "capped")
    for record in records:
        figures = (f"{record.metrics['recall@10']:.4f}", f"{record.metrics['ndcg@10']:.4f}", f"{record.parameters:,}")
        times = (f"{record.train_seconds:,.0f}", f"{record.inference_ms_per_user:.2f}", record.capped or "")
        table.add_row(escape(record.label), str(record.seed), *figures, *times)
    Console().print(table)
