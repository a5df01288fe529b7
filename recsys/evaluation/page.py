"""The parts of a page that needs nothing else: one HTML file, inline style and SVG, no script, no request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from recsys.evaluation.report_style import STYLE

# No script, no font, no picture from elsewhere can load, even if a value slipped through unescaped.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, body: str, style: str = "") -> str:
    """The whole document; `body` is HTML, `title` is text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


def section(anchor: str, title: str, content: str) -> str:
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>{content}</section>'


def figure(svg: str, caption: str) -> str:
    return f'<figure role="group"><div class="plot">{svg}</div><figcaption>{escape(caption)}</figcaption></figure>'


def table(head: Sequence[str], rows: Iterable[str], kind: str = "") -> str:
    """`rows` are HTML, `head` is text."""
    cells = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
