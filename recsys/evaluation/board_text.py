"""A board as Markdown, and the texts of its cells, which the terminal shows too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from recsys.evaluation.board import Board, BoardRow, Figure, Mark, Measured
from recsys.evaluation.published import Published
from recsys.evaluation.report import md_text, number
from recsys.evaluation.slices import POPULARITY

Cell = tuple[str, Callable[[BoardRow], str]]
"""Head of a column and its text for a row."""

_TITLES = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}
LEGEND = (
    "Mean ± sample standard deviation over seeds, [95 % bootstrap interval over test cases]. **Bold**: better than every other model of the column "
    "(paired bootstrap, Holm over the column, p < 0.05). *Italic with =*: the leading models, which these cases cannot tell apart."
)


def title_of(metric: str) -> str:
    """Of ndcg@10: NDCG@10."""
    noun, _, k = metric.partition("@")
    return f"{_TITLES.get(noun, noun)}@{k}"


def measured_text(value: Measured | None) -> str:
    return "–" if value is None else f"{figure_text(Figure(value.mean, value.deviation))} [{number(value.low)}, {number(value.high)}]"


def figure_text(value: Figure, digits: int = 4) -> str:
    return number(value.mean, digits) + (f" ± {number(value.deviation, digits)}" if math.isfinite(value.deviation) else "")


def name_of(row: BoardRow) -> str:
    return row.label if row.label == row.model else f"{row.label} ({row.model})"


def seeds_of(row: BoardRow) -> str:
    return str(len(row.seeds))


def accuracy_figures() -> list[Cell]:
    """Beside the tested metrics."""
    return [
        ("Recall@10 unmasked", _figure("unmasked recall@10")),
        ("NDCG@10 unmasked", _figure("unmasked ndcg@10")),
        ("valid NDCG@10", _figure("validation ndcg@10")),
        ("valid / test", _figure("validation/test", 2)),
    ]


def slice_figures(board: Board) -> list[Cell]:
    counts = {name: f" (n = {board.slice_counts[name]:,})" if name in board.slice_counts else "" for name in POPULARITY}
    return [("coverage@10", _figure("coverage@10", 3)), *((f"{name}{counts[name]}", _figure(f"{name} recall@10")) for name in POPULARITY)]


def cost_figures() -> list[Cell]:
    return [
        ("parameters", lambda row: f"{row.figures['parameters'].mean:,.0f}"),
        ("epochs (best)", lambda row: f"{number(row.figures['epochs'].mean, 0)} ({number(row.figures['best epoch'].mean, 0)})"),
        ("train s", lambda row: f"{row.figures['train seconds'].mean:,.1f}" + (f", capped ({'; '.join(row.capped)})" if row.capped else "")),
        ("ms / user", _figure("ms per user", 3)),
        ("peak MB", lambda row: f"{row.figures['peak MB'].mean:,.0f}"),
        ("threads", lambda row: number(row.figures["threads"].mean, 0)),
    ]


def facts(board: Board) -> list[tuple[str, str]]:
    runs = sum(len(row.seeds) for row in board.rows)
    commits = dict.fromkeys(commit for row in board.rows for commit in row.commits)
    return [
        ("Data set", board.dataset),
        ("Protocol", board.protocol),
        ("Split hash", board.split_hash),
        ("Test cases", f"{board.cases:,}"),
        ("Models, runs", f"{len(board.rows)}, {runs}"),
        ("Commits", ", ".join(commit[:12] for commit in commits)),
        ("Runs made", f"{min(row.first for row in board.rows)} to {max(row.last for row in board.rows)}"),
    ]


def warnings(board: Board) -> list[str]:
    return [
        f"{name_of(row)}: the settings of seed {', '.join(map(str, row.stale))} are not those of the newest run; run them again"
        for row in board.rows
        if row.stale
    ]


def pair_text(row: BoardRow, metric: str) -> str:
    """Masked / unmasked, for the table beside published figures."""
    value = row.metrics.get(metric)
    return f"{number(value.mean if value else None)} / {number(row.figures[f'unmasked {metric}'].mean)}"


def measured_differs(row: BoardRow) -> str:
    return f"history masked / not masked; ties by expectation; {len(row.seeds)} seed{'s' * (len(row.seeds) > 1)}"


PAIRS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")


def markdown(dataset: str, boards: Sequence[Board], published: Published | None) -> str:
    lines = [f"# {md_text(dataset)}", "", f"Made by `recsys board {dataset.replace('`', '')}` from the records in this folder; do not edit.", ""]
    for board in boards:
        lines += [f"## {md_text(board.protocol)}", "", *(f"- {key}: {md_text(value)}" for key, value in facts(board)), ""]
        lines += [f"> {md_text(text)}" for text in warnings(board)] + [""] * bool(warnings(board))
        tested = [metric for metric in ("recall@10", "ndcg@10", "mrr@10") if metric in board.rows[0].metrics]
        named: list[Cell] = [("model", lambda row: md_text(name_of(row))), ("seeds", seeds_of)]
        marked: list[Cell] = [(title_of(metric), _marked(metric)) for metric in tested]
        lines += [*_table(named + marked + accuracy_figures(), board.rows), "", LEGEND, ""]
        lines += ["Recall@10 by how often training saw the target, and the share of the catalogue that is recommended to anyone:", ""]
        lines += [*_table(named + slice_figures(board), board.rows), "", *_table(named + cost_figures(), board.rows), ""]
        lines += ["Commands:", "", *(f"- `{command.replace('`', '')}`" for command in dict.fromkeys(c for row in board.rows for c in row.commands)), ""]
    if published is not None:
        lines += ["## Published figures beside ours", "", *([md_text(published.note), ""] if published.note else []), *_published(boards, published), ""]
    return "\n".join(lines).rstrip() + "\n"


def _published(boards: Sequence[Board], published: Published) -> Iterable[str]:
    yield "| model | Recall@5 | Recall@10 | NDCG@5 | NDCG@10 | source | what differs |"
    yield "|---|---|---|---|---|---|---|"
    for board in boards:
        for row in board.rows:
            cells = " | ".join(pair_text(row, metric) for metric in PAIRS)
            yield f"| **{md_text(name_of(row))}** | {cells} | measured here, {md_text(board.protocol)} | {measured_differs(row)} |"
    for entry in published.rows:
        cells = " | ".join(number(entry.metrics.get(metric)) for metric in PAIRS)  # type: ignore[call-overload]
        source = published.sources[entry.source]
        yield f"| {md_text(entry.model)} | {cells} | {md_text(source.title)}, {md_text(source.where)} | {md_text(published.differs(entry))} |"


def _table(columns: Sequence[Cell], rows: Sequence[BoardRow]) -> list[str]:
    head = ["| " + " | ".join(title for title, _ in columns) + " |", "|" + "---|" * len(columns)]
    return head + ["| " + " | ".join(cell(row) for _, cell in columns) + " |" for row in rows]


def _marked(metric: str) -> Callable[[BoardRow], str]:
    def cell(row: BoardRow) -> str:
        value = row.metrics.get(metric)
        text = measured_text(value)
        if value is None or value.mark is Mark.NONE:
            return text
        return f"**{text}**" if value.mark is Mark.BEST else f"*{text}* ="

    return cell


def _figure(name: str, digits: int = 4) -> Callable[[BoardRow], str]:
    return lambda row: figure_text(row.figures[name], digits)
