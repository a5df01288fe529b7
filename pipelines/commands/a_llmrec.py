"""`recsys a-llmrec`: a frozen recommender in the words of a frozen language model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def a_llmrec(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, for example experiments/configs/amazon_industrial/a_llmrec.yaml")],
    model: Annotated[list[str] | None, typer.Option(help="Only this model of the file; may be given often.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds 0 to this number less one, in place of the file's.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="In place of measuring: let the file's `explained` model write, and keep what it wrote.")] = False,
    render: Annotated[bool, typer.Option("--render", help="Run nothing; write the page from the runs that are there.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Override one value; may be given often. Example: --set models.a_llmrec.projection.layers=30"),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one training.")] = 1,
    folder: Annotated[Path | None, typer.Option(help="Folder of the board; default: that of the data set.")] = None,
    force: Annotated[bool, typer.Option(help="Run again what is done already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of the page.")] = False,
) -> None:
    """Align the items of a frozen recommender with their texts (stage 1), project users and items into the token space of a frozen language
    model (stage 2), and measure it beside the recommender alone: Hit@1 among 1 + 19 and the whole catalogue, warm, rare and new items.

    Writes `a_llmrec.json` and `a_llmrec.md` of the board. A finished run is left alone, a killed one resumes by the same command.
    With `--explain` a model of all layers says why it recommends what, for ten users: `explanations.md`.
    """
    from pipelines.a_llmrec import render_board, run_models
    from pipelines.a_llmrec_explain import explain_users

    console = Console(stderr=True)
    if explain:
        sys.stdout.write(explain_users(config, console, threads=threads, folder=folder, overrides=overrides or (), force=force).read_text(encoding="utf-8"))
        return
    if not render:
        run_models(config, model or (), console, seeds=seeds, threads=threads, folder=folder, overrides=overrides or (), force=force)
    document, page = render_board(config, folder=folder, overrides=overrides or ())
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n" if as_json else page)
