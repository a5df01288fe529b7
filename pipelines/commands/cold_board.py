"""`recsys cold-board`: the models of a data set on items that training never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipelines.board_folders import BOARDS
from recsys.errors import ConfigError


def cold_board(
    dataset: Annotated[str, typer.Argument(help="A data set with `cold` in experiments/configs/<dataset>/fusion.yaml, such as amazon_beauty.")],
    run: Annotated[list[str] | None, typer.Option(help="First train and evaluate this model; may be given often. `all`: each model of the cold board.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --run: seeds 0 to this number less one.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one training.")] = 2,
    folder: Annotated[Path, typer.Option(help="Folder that holds the boards.")] = BOARDS,
) -> None:
    """Warm and cold accuracy on splits that hold items out, beside nearest neighbours; lists with reserved slots. Writes cold.md."""
    import sys

    from pipelines.cold_run import FOLDER, KINDS, cold_config, run_cold
    from recsys.artifacts.atomic import write_bytes
    from recsys.evaluation import cold_board as board
    from recsys.evaluation.run_values import read_models

    config = cold_config(dataset)
    if run:
        run_cold(dataset, () if "all" in run else tuple(run), range(seeds), Console(stderr=True), threads=threads, folder=folder / dataset)
    parts = []
    for name in config.splits:
        runs = {kind: read_models(folder / dataset / FOLDER / name / kind) for kind in KINDS}
        done = board.finished(runs, config.models)
        slots = [
            board.slots_row(each.label, runs, each.known, each.new, share)
            for share in config.shares
            for each in config.slots.values()
            if each.known in done and each.new in done
        ]
        parts.append((name, runs, board.cold_rows(runs, config.models, nearest=config.nearest, warm=config.warm), slots))
    if not any(rows for _, _, rows, _ in parts):
        raise ConfigError(f"{folder / dataset / FOLDER}: no runs yet; fill it: recsys cold-board {dataset} --run MODEL, or --run all")
    text = board.markdown(dataset, parts, nearest=config.nearest, warm=config.warm)
    write_bytes(folder / dataset / "cold.md", text.encode())
    sys.stdout.write(text)
