"""HTML of a board. Every piece of text passes `escape`: labels and commands are data."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from recsys.evaluation import board_plots as plots
from recsys.evaluation.board import ORDER, TESTED, Board, BoardRow, Figure, Mark, Measured
from recsys.evaluation.board_text import (
    PAIRS,
    Cell,
    accuracy_figures,
    cost_figures,
    facts,
    figure_text,
    measured_differs,
    name_of,
    pair_text,
    seeds_of,
    slice_figures,
    title_of,
    warnings,
)
from recsys.evaluation.page import document, figure, section, table
from recsys.evaluation.published import Published
from recsys.evaluation.report import number

STYLE = """
main{max-width:1240px}.board td small{color:var(--muted);font-weight:400}td.top{color:var(--accent);font-weight:600}td.best{color:var(--accent)}
.published td.text{font-size:13px;min-width:230px}.published tr.own th{font-weight:680}
.board th:first-child,.published th:first-child{white-space:normal;min-width:150px;position:sticky;left:0;background:var(--card)}
.published tr.own th:first-child{background:var(--wash)}.scroll+.scroll{margin-top:16px}
"""
_LEGEND = (
    "Mean ± sample standard deviation over seeds; below it the 95 % bootstrap interval over test cases. Bold: better than every other model of the column "
    "(paired bootstrap, Holm over the column, p below 0.05). Coloured with “=”: the leading models, which these cases cannot tell apart."
)
_BARS = "Test cases ranked against the whole catalogue, history masked; the thin line is the 95 % bootstrap interval, coloured bars lead."
_CURVES = "Validation NDCG@10 by epoch: a colour a model, a line a seed, a marker at the best epoch."
_TRADE = "What accuracy costs in time to score one user (left), and how much of the catalogue is ever recommended (right)."


def render(dataset: str, boards: Sequence[Board], published: Published | None) -> str:
    """The whole document. Deterministic."""
    models = sum(len(board.rows) for board in boards)
    header = f'<header><p class="over">Board</p><h1>{escape(dataset)}</h1><p class="lead">{models} models, measured by one evaluator on one split.</p></header>'
    body = header + "".join(_board(board) for board in boards) + (_published(boards, published) if published is not None else "")
    return document(f"Board of {dataset}", body, STYLE)


def _board(board: Board) -> str:
    name = board.protocol
    parts = ["".join(f'<p class="note"><b>{escape(text)}</b></p>' for text in warnings(board))]
    tested = [metric for metric in TESTED if metric in board.rows[0].metrics]
    head = ["Model", "Seeds", *(title_of(metric) for metric in tested), *(title for title, _ in accuracy_figures())]
    rows = (
        f"<tr>{_name(row)}<td>{len(row.seeds)}</td>{''.join(_measured(row.metrics[metric]) for metric in tested)}{_cells(row, accuracy_figures())}</tr>"
        for row in board.rows
    )
    parts.append(table(head, rows, "board") + f'<p class="note">{escape(_LEGEND)}</p>')
    if ORDER in board.rows[0].metrics:
        parts.append(figure(plots.accuracy_bars(board.rows, name), _BARS))
        pair = figure(plots.trade_offs(board.rows, name), _TRADE)
        trained = [row for row in board.rows if row.curves]
        pair += figure(plots.validation_curves(trained, name), _CURVES) if trained else ""
        parts.append(f'<div class="pair" style="margin-top:24px">{pair}</div>')
    results = section(f"results-{_slug(name)}", f"Results, {name}", "".join(parts))
    slices = _plain_table(board, slice_figures(board)) + '<p class="note">Recall@10 of test cases by how often training saw their target.</p>'
    made = "".join(f"<div><dt>{escape(key)}</dt><dd><code>{escape(value)}</code></dd></div>" for key, value in facts(board))
    commands = (
        f'<tr>{_name(row)}<td class="text"><code>{"<br>".join(map(escape, row.commands))}</code></td>'
        f'<td class="text"><code>{escape(", ".join(c[:12] for c in row.commits))}</code></td><td>{escape(row.last)}</td></tr>'
        for row in board.rows
    )
    runs = f'<dl class="facts">{made}</dl><div style="height:16px"></div>' + table(("Model", "Command", "Commit", "Last run"), commands, "board")
    return (
        results
        + section(f"slices-{_slug(name)}", "Rare and popular items, coverage", slices)
        + section(f"cost-{_slug(name)}", "Cost", _plain_table(board, cost_figures()))
        + section(f"runs-{_slug(name)}", "Runs", runs)
    )


def _published(boards: Sequence[Board], published: Published) -> str:
    own = [
        f"<tr class=own>{_name(row)}{''.join(f'<td>{escape(pair_text(row, metric))}</td>' for metric in PAIRS)}"
        f'<td class="text">measured here, {escape(board.protocol)}</td><td class="text">{escape(measured_differs(row))}</td></tr>'
        for board in boards
        for row in board.rows
    ]
    others = [
        f'<tr><th scope="row">{escape(entry.model)}</th>'
        + "".join(f"<td>{number(entry.metrics.get(metric))}</td>" for metric in PAIRS)  # type: ignore[call-overload]
        + f'<td class="text">{escape(published.sources[entry.source].title)}<small>{escape(published.sources[entry.source].where)}</small></td>'
        f'<td class="text">{escape(published.differs(entry))}</td></tr>'
        for entry in published.rows
    ]
    head = ("Model", *map(title_of, PAIRS), "Source", "What differs")
    note = f'<p class="note">{escape(published.note)}</p>' if published.note else ""
    return section("published", "Published figures beside ours", table(head, own + others, "published") + note)


def _plain_table(board: Board, columns: Sequence[Cell]) -> str:
    rows = (f"<tr>{_name(row)}<td>{seeds_of(row)}</td>{_cells(row, columns)}</tr>" for row in board.rows)
    return table(("Model", "Seeds", *(title for title, _ in columns)), rows, "board")


def _cells(row: BoardRow, columns: Sequence[Cell]) -> str:
    return "".join(f"<td>{escape(cell(row))}</td>" for _, cell in columns)


def _measured(value: Measured) -> str:
    kind = {Mark.BEST: ' class="best"', Mark.TOP: ' class="top"', Mark.NONE: ""}[value.mark]
    equal = " =" if value.mark is Mark.TOP else ""
    return f"<td{kind}>{figure_text(Figure(value.mean, value.deviation))}{equal}<small>{number(value.low)} – {number(value.high)}</small></td>"


def _name(row: BoardRow) -> str:
    return f'<th scope="row">{escape(name_of(row))}</th>'


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in text.lower())
