"""`Recommendations`: the answer of a recommender, as a table that explains itself."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

SHOWN_ROWS = 50
HISTORY_USER = ""
"""user_id in the answer to a request that names no user."""


@dataclass(frozen=True, repr=False)
class Recommendations:
    """frame: user_id, item_id, score (f32), rank (1 = best), and `share_<signal>` (f32) for each signal; the shares of a
    row sum to its score. titles: item_id -> display name of the items in `frame`."""

    frame: pl.DataFrame
    titles: Mapping[str, str]
    model: str
    version: str
    spaces: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.frame)

    def item_ids(self, user_id: str = HISTORY_USER) -> list[str]:
        """The items of one user, best first."""
        return self.frame.filter(pl.col("user_id") == user_id)["item_id"].to_list()

    def _rows(self) -> list[tuple[str, ...]]:
        columns = ["user_id", "rank", "item_id", "score"]
        shown = self.frame.head(SHOWN_ROWS).select(columns).iter_rows()
        return [(user or "(history)", str(rank), item, _printable(self.titles.get(item, item)), f"{score:.4f}") for user, rank, item, score in shown]

    def _heading(self) -> str:
        more = f", the first {SHOWN_ROWS} shown" if len(self) > SHOWN_ROWS else ""
        return f"{len(self)} recommendations of {self.model} {self.version}{more}"

    def __repr__(self) -> str:
        rows = [("user", "rank", "item", "title", "score"), *self._rows()]
        widths = [min(60, max(len(row[c]) for row in rows)) for c in range(5)]
        lines = ["  ".join(cell[:width].ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([self._heading(), *lines])

    def _repr_html_(self) -> str:
        """For notebooks. Ids and titles are untrusted: every cell is escaped."""
        head = "".join(f"<th>{name}</th>" for name in ("user", "rank", "item", "title", "score"))
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self._rows())
        return f"<p>{html.escape(self._heading())}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _printable(text: str) -> str:
    """A title with control characters must not move the terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in text)
