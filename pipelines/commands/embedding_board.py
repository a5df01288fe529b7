"""`recsys embedding-board`: ways to embed the items of a data set, side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipelines.board_folders import BOARDS


def embedding_board(
    dataset: Annotated[str, typer.Argument(help="A data set with experiments/configs/<dataset>/embeddings.yaml, such as amazon_beauty.")],
    line: Annotated[list[str] | None, typer.Option(help="Run this line, or all that begin with it, alone; may be given often.")] = None,
    finished_only: Annotated[bool, typer.Option("--finished-only", help="Run nothing: the board of what is finished.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch; default: all cores.")] = None,
    folder: Annotated[Path, typer.Option(help="Folder that holds the boards.")] = BOARDS,
    root: Annotated[Path, typer.Option(help="Folder of artifacts and caches.")] = Path(".recsys"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the board as JSON.")] = False,
) -> None:
    """Embed, fine-tune and measure what embeddings.yaml lists: item-to-item retrieval and cold items by nearest neighbours.

    Finished lines are not run again, and nothing is embedded twice; a killed run resumes by the same command.
    """
    import torch

    from pipelines.embedding_board import run_board
    from pipelines.embedding_rows import EmbeddingBoardConfig
    from pipelines.progress import RichReporter, SilentReporter
    from recsys.evaluation.embedding_board import markdown

    if threads:
        torch.set_num_threads(threads)
    config = EmbeddingBoardConfig.of_dataset(dataset)
    reporter = SilentReporter() if as_json else RichReporter(Console(stderr=True))
    document = run_board(config, reporter, folder / dataset, lines=line or (), root=root, finished_only=finished_only)
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        sys.stdout.write(markdown(document))
