"""Figures of a benchmark as Markdown: plain values in one table, each list of rows in one of its own, then the notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def markdown(name: str, figures: dict[str, Any], picture: str | None = None) -> str:
    plain = {key: value for key, value in figures.items() if not isinstance(value, list)}
    lines = [f"## {_words(name)}", ""]
    if picture is not None:
        lines += [f"![{_words(name)}]({picture})", ""]
    for key, value in figures.items():
        if key != "notes" and isinstance(value, list):
            lines += [f"### {_words(key)}", "", *_table(value), ""]
    lines += ["| figure | value |", "|---|---|", *(f"| {_words(key)} | {shown(value)} |" for key, value in plain.items()), ""]
    for note in figures.get("notes", []):
        lines += [note, ""]
    return "\n".join(lines)


def shown(value: object) -> str:
    """A cell: no more digits than a reader needs, thousands apart, a dash for what is unknown."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = ["| " + " | ".join(map(_words, columns)) + " |", "|" + "---|" * len(columns)]
    return head + ["| " + " | ".join(shown(row.get(column)) for column in columns) + " |" for row in rows]


def _words(key: str) -> str:
    return key.replace("_", " ")
