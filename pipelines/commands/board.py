"""`recsys board`: the runs of a data set as one table, and filling it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pipelines.board_folders import BOARDS, CONFIGS, PUBLISHED
from pipelines.commands.wide_table import print_wide
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.evaluation.board import Board, BoardRow
    from recsys.evaluation.run_values import Run

WIDTH = 400
"""Columns of a table that is piped: nothing is cut off."""
WIDE = 250
"""Below this a model has its short name, and an interval a line of its own."""


def board(
    dataset: Annotated[str, typer.Argument(help="A folder of boards, such as ml-100k.")],
    run: Annotated[list[str] | None, typer.Option(help="First train and evaluate this model; may be given often. `all`: each model of the board.")] = None,
    tune: Annotated[list[str] | None, typer.Option(help="First run this model's trials, judged by validation alone; may be given often.")] = None,
    study: Annotated[list[str] | None, typer.Option(help="First run this model's studies: what one change does; may be given often.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --run: seeds 0 to this number less one.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one training.")] = 2,
    force: Annotated[bool, typer.Option(help="With --run: run again what is done already.")] = False,
    folder: Annotated[Path, typer.Option(help="Folder that holds the boards.")] = BOARDS,
    published: Annotated[Path, typer.Option(help="Folder of published figures, one YAML a data set.")] = PUBLISHED,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of tables.")] = False,
) -> None:
    """Render a board from its runs: the table, board.md and board.html. With --run: fill it first; what is done is not done again."""
    from recsys.artifacts.atomic import write_bytes
    from recsys.evaluation import board_html, board_text
    from recsys.evaluation.board import board_json, build_boards
    from recsys.evaluation.published import Published
    from recsys.evaluation.run_record import read_board

    for chosen, is_study in ((tune, False), (study, True)):
        if chosen:
            from pipelines.board_run import tune_models

            models = () if "all" in chosen else tuple(chosen)
            tune_models(dataset, models, Console(stderr=as_json), threads=threads, folder=folder / dataset, study=is_study)
    if run:
        from pipelines.board_run import run_models

        models = () if "all" in run else tuple(run)
        run_models(dataset, models, range(seeds), Console(stderr=as_json), threads=threads, folder=folder / dataset, force=force)
    runs = read_board(folder / dataset)
    if not runs:
        if (CONFIGS / dataset / "baselines.yaml").is_file():
            raise ConfigError(f"{folder / dataset}: no runs yet; fill it: recsys board {dataset} --run MODEL, or --run all")
        raise ConfigError(f"{folder / dataset}: no runs; {known_boards(folder)}. One of your own begins with {CONFIGS / dataset / 'baselines.yaml'}")
    figures = Published.of_dataset(dataset, published)
    boards = build_boards(runs)
    files = {"markdown": folder / dataset / "board.md", "html": folder / dataset / "board.html"}
    write_bytes(files["markdown"], board_text.markdown(dataset, boards, figures).encode())
    write_bytes(files["html"], board_html.render(dataset, boards, figures).encode())
    if ladder := _ladder(dataset, runs):
        files["ladder"] = folder / dataset / "ladder.md"
        write_bytes(files["ladder"], ladder.encode())
    if as_json:
        document = {
            "dataset": dataset,
            "boards": [board_json(b) for b in boards],
            "published": figures.model_dump(mode="json") if figures else None,
            "files": {kind: str(path) for kind, path in files.items()},
        }
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    for each in boards:
        _show(each, console)
    console.print("written: " + ", ".join(str(path) for path in files.values()), markup=False, highlight=False, soft_wrap=True)


def _ladder(dataset: str, runs: Sequence[Run]) -> str | None:
    """As Markdown; None where the board has none, or fewer than two of its rungs were run."""
    from pipelines.board_config import FusionFile
    from recsys.evaluation import ladder

    file = FusionFile.of_dataset(dataset)
    rungs = {name: [run for run in runs if run[1].model == name] for name in (file.ladder if file else ())}
    done = [seeds for seeds in rungs.values() if seeds]
    if len(done) < 2:
        return None
    return ladder.markdown(dataset, ladder.ladder(done), done[0][0][1].cases, [name for name, seeds in rungs.items() if not seeds])


def known_boards(folder: Path) -> str:
    known = sorted({path.parent.name for path in folder.glob("*/*-seed*.json")})
    return f"there are boards of: {', '.join(known) or 'nothing yet'}"


def _show(board: Board, console: Console) -> None:
    from recsys.evaluation import board_text as text

    tested = [metric for metric in ("recall@10", "ndcg@10", "mrr@10") if metric in board.rows[0].metrics]
    title = f"{board.dataset}, {board.protocol}, split {board.split_hash[:12]}, {board.cases:,} cases"
    narrow = console.width < WIDE
    accuracy, other = text.accuracy_figures(), [*text.slice_figures(board), *text.cost_figures()]
    names = [escape(row.model if narrow else text.name_of(row)) for row in board.rows]
    figures = [(text.seeds_of(row), *(_measured(row, m, narrow) for m in tested), *(cell(row) for _, cell in accuracy)) for row in board.rows]
    heads = ["model", "seeds", *map(text.title_of, tested), *(head for head, _ in accuracy)]
    print_wide(console, heads, [(name, *cells) for name, cells in zip(names, figures, strict=True)], title=escape(title))
    console.print(
        "[dim]mean ± deviation over seeds, 95 % interval over cases; [bold]*[/] better than all others of the column (Holm p < 0.05), = cannot be told apart[/]"
    )
    costs = [(name, *(escape(cell(row)) for _, cell in other)) for name, row in zip(names, board.rows, strict=True)]
    print_wide(console, ["model", *(head for head, _ in other)], costs)
    for warning in text.warnings(board):
        console.print(f"[yellow]{escape(warning)}[/]")


def _measured(row: BoardRow, metric: str, narrow: bool) -> str:
    from recsys.evaluation.board import Mark
    from recsys.evaluation.board_text import measured_text

    value = row.metrics[metric]
    figure, bracket, interval = measured_text(value).partition(" [")
    interval = ("\n" if narrow else " ") + escape(bracket.strip() + interval)
    styles = {Mark.BEST: ("[bold green]", " *", "[/]"), Mark.TOP: ("[green]", " =", "[/]"), Mark.NONE: ("", "", "")}
    style, mark, end = styles[value.mark]
    return style + (figure + mark + interval if narrow else figure + interval + mark) + end
