"""`recsys compare`: is the difference between two models real?"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pipelines.board_folders import BOARDS
from pipelines.commands.board import WIDTH, known_boards
from pipelines.commands.wide_table import print_wide
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.evaluation.run_values import Run


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A run's JSON, or DATASET/MODEL: all its seeds, averaged in each case.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What it is compared with.")],
    metric: Annotated[list[str] | None, typer.Option(help="Such as ndcg@10; may be given often, Holm corrects over all of them.")] = None,
    slices: Annotated[bool, typer.Option("--slices", help="Also the means of each slice.")] = False,
    folder: Annotated[Path, typer.Option(help="Folder that holds the boards.")] = BOARDS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of tables.")] = False,
) -> None:
    """Is the difference between two models real? Three paired tests over the same test cases, and a sentence that says it."""
    from recsys.evaluation.report import plain
    from recsys.evaluation.run_comparison import compare_runs, compare_slices, verdict

    runs_a, runs_b = _runs(a, folder), _runs(b, folder)
    if {path.resolve() for path, _ in runs_a} == {path.resolve() for path, _ in runs_b}:
        raise ConfigError(f"A ({a}) and B ({b}) are the same runs: there is nothing to compare; {_known(runs_a[0][0].parent, besides=runs_a[0][1].model)}")
    name_a, name_b = _name(runs_a, a), _name(runs_b, b)
    if name_a == name_b:
        name_a, name_b = a, b
    found = compare_runs(runs_a, runs_b, metric or ["ndcg@10", "recall@10"])
    verdicts = [verdict(d, name_a, name_b) for d in found]
    parts = compare_slices(runs_a, runs_b) if slices else []
    note = "" if len(runs_a) == len(runs_b) else f"{name_a} has {_seeds(runs_a)} and {name_b} {_seeds(runs_b)}: each case counts with its mean over them"
    if as_json:
        document = {
            "a": {"name": name_a, "files": [str(path) for path, _ in runs_a]},
            "b": {"name": name_b, "files": [str(path) for path, _ in runs_b]},
            "split_hash": runs_a[0][1].split_hash,
            "metrics": [{**plain(asdict(d)), "verdict": sentence} for d, sentence in zip(found, verdicts, strict=True)],
            "note": note,
        }
        if slices:
            document["slices"] = [plain(asdict(part)) for part in parts]
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    heads = ("metric", "A", "B", "A − B", "95 % interval", "relative", "p Holm", "p bootstrap", "p t", "p Wilcoxon", "effect d_z", "better / worse / equal")
    rows = []
    for d in found:
        p_values = (f"{p:.4f}" for p in (d.holm, d.p_bootstrap, d.p_t, d.p_wilcoxon))
        interval = escape(f"[{d.low:+.4f}, {d.high:+.4f}]")
        cases = f"{d.better:,} / {d.worse:,} / {d.equal:,}"
        means = (f"{d.mean_a:.4f}", f"{d.mean_b:.4f}", f"{d.difference:+.4f}")
        rows.append((d.metric, *means, interval, f"{d.relative:+.1%}", *p_values, f"{d.effect:+.3f}", cases))
    console.print(f"A: {name_a} ({_seeds(runs_a)})   B: {name_b} ({_seeds(runs_b)})   {found[0].count:,} cases", markup=False, highlight=False)
    print_wide(console, heads, rows)
    for sentence in (*verdicts, *([note] if note else [])):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    if slices:
        listed = [
            (escape(part.name), f"{part.count:,}", part.metric, f"{part.mean_a:.4f}", f"{part.mean_b:.4f}", f"{part.mean_a - part.mean_b:+.4f}")
            for part in parts
            if part.count
        ]
        print_wide(console, ("slice", "cases", "metric", "A", "B", "A − B"), listed, title="Slices: means, without a test")
        if empty := list(dict.fromkeys(part.name for part in parts if not part.count)):
            console.print(f"without cases: {', '.join(empty)}", markup=False, highlight=False, soft_wrap=True)


def _runs(reference: str, folder: Path) -> list[Run]:
    from recsys.evaluation.run_record import read_board, read_run

    path = Path(reference)
    if path.suffix == ".json":
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; expected a run's JSON, or DATASET/MODEL; {known_boards(folder)}")
        return [(path, read_run(path))]
    dataset, slash, model = reference.rpartition("/")
    if not slash:
        raise ConfigError(f"{reference!r}: expected a run's JSON, or DATASET/MODEL such as ml-100k/sasrec; {known_boards(folder)}")
    board = read_board(folder / dataset)
    if not board:
        raise ConfigError(f"{folder / dataset}: no runs; {known_boards(folder)}")
    found = [run for run in board if run[1].model == model]
    if not found:
        raise ConfigError(f"{folder / dataset}: no run of {model!r}; {_known(folder / dataset)}")
    return found


def _known(board: Path, besides: str | None = None) -> str:
    from recsys.evaluation.run_record import read_board

    others = dict.fromkeys(record.model for _, record in read_board(board) if record.model != besides)
    return f"there are{' also' if besides else ''}: {', '.join(others) or 'none'}"


def _seeds(runs: list[Run]) -> str:
    return f"{len(runs)} seed{'s' * (len(runs) > 1)}"


def _name(runs: list[Run], reference: str) -> str:
    return runs[0][1].label if not reference.endswith(".json") else f"{runs[0][1].label} seed {runs[0][1].seed}"
