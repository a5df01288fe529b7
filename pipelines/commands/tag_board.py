"""`recsys tag-board`: classifying the nodes of a text-attributed graph."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipelines.board_folders import BOARDS


def tag_board(
    dataset: Annotated[str, typer.Argument(help="A data set with experiments/configs/<dataset>/board.yaml, such as tag_cora.")],
    row: Annotated[list[str] | None, typer.Option(help="Compute only rows that begin so, such as public, random-tape or 1shot; may be given often.")] = None,
    tune: Annotated[bool, typer.Option("--tune", help="Compute the trials of the config, judged on validation alone, in place of the rows.")] = False,
    finished_only: Annotated[bool, typer.Option("--finished-only", help="Compute nothing: the board of what is finished.")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one value; may be given often, as in --set seeds=3")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch; default: all cores.")] = None,
    folder: Annotated[Path, typer.Option(help="Folder that holds the boards.")] = BOARDS,
    root: Annotated[Path, typer.Option(help="Folder of artifacts and caches.")] = Path(".recsys"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the board as JSON.")] = False,
) -> None:
    """Classify nodes by words, frozen encoders, TAPE's explanations and LLM4NG's generated nodes: mean and deviation over seeds.

    A finished row and seed is not computed again, no text is embedded and no prompt answered twice; a killed run resumes by the same command.
    """
    import torch

    from pipelines.progress import RichReporter, SilentReporter
    from pipelines.tag_board import run_board
    from pipelines.tag_config import TagBoardConfig
    from recsys.evaluation.tag_board import markdown

    if threads:
        torch.set_num_threads(threads)
    config = TagBoardConfig.of_dataset(dataset, overrides)
    reporter = SilentReporter() if as_json else RichReporter(Console(stderr=True))
    document = run_board(
        config, reporter, folder / dataset, rows=row or (), tune=tune, finished_only=finished_only, threads=torch.get_num_threads(), root=root
    )  # fmt: skip
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        sys.stdout.write(markdown(document))
