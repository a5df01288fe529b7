"""A table of any width on a terminal of any other: whole columns, in as many tables below each other as it takes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

LONGEST = 30
"""Characters after which a cell is folded where the terminal is too narrow for all."""
MARGIN = 3
"""Of a column: a rule and two blanks."""


def print_wide(console: Console, heads: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """heads: plain texts.  rows: cells with rich's markup. The first column names the row and is repeated in each table."""
    cells = [[Text.from_markup(row[at]) for row in rows] for at in range(len(heads))]
    whole = [max(map(_width, (Text(head), *column))) for head, column in zip(heads, cells, strict=True)]
    if sum(whole) + MARGIN * len(whole) < console.width:
        tables = [list(range(len(heads)))]
    else:
        # A head may break between its words.
        words = [max(map(len, head.split()), default=0) for head in heads]
        whole = [max(word, *(min(_width(cell), LONGEST) for cell in column)) if column else word for word, column in zip(words, cells, strict=True)]
        tables = _packed(whole, console.width)
    for number, columns in enumerate(tables):
        shown = Table(*(Column(heads[at], width=whole[at], overflow="fold") for at in columns), title=None if number else title, title_justify="left")
        for row in range(len(rows)):
            shown.add_row(*(cells[at][row] for at in columns))
        console.print(shown)


def _packed(widths: Sequence[int], width: int) -> list[list[int]]:
    """Columns of each table; the first column leads each, and one more stands beside it however narrow the terminal is."""
    tables: list[list[int]] = []
    for at in range(1, len(widths)):
        if tables and sum(widths[column] + MARGIN for column in (*tables[-1], at)) < width:
            tables[-1].append(at)
        else:
            tables.append([0, at])
    return tables or [[0]]


def _width(cell: Text) -> int:
    return max((line.cell_len for line in cell.split("\n")), default=0)
