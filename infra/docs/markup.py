"""From docstrings and plain texts to Markdown that says the same."""

from __future__ import annotations

import inspect
import re

_CODE = re.compile(r"(`[^`]*`)")
_SPECIAL = re.compile(r"[\\*_\[\]{}#|~^=+]")
_NAMED = re.compile(r"^[A-Za-z_][\w.]*(?:, [A-Za-z_][\w.]*)*: ")
_SECTION = re.compile(r"^(Raises|Returns|Yields|Args):$")


def escaped(text: str) -> str:
    """Plain text with `code` as Markdown: nothing in it is markup but the backticks."""
    return "".join(part if part.startswith("`") else _plain(part) for part in _CODE.split(text))


def _plain(text: str) -> str:
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def docstring(text: str | None) -> str:
    """A docstring of this project: paragraphs, lines `name: what it is`, sections such as `Raises:`, examples after `>>>`."""
    if not text:
        return ""
    blocks = [_block(block.splitlines()) for block in re.split(r"\n[ \t]*\n", inspect.cleandoc(text))]
    return "\n\n".join(block for block in blocks if block)


def _block(lines: list[str]) -> str:
    lines = [line.rstrip() for line in lines if line.strip()]
    if not lines:
        return ""
    if lines[0].lstrip().startswith(">>>"):
        return "```pycon\n" + inspect.cleandoc("\n".join(lines)) + "\n```"
    parts: list[str] = []
    paragraph: list[str] = []
    for number, line in enumerate(lines):
        if _SECTION.match(line):
            parts.append("\n".join(paragraph))
            heading = line.strip().rstrip(":")
            parts.append(f"**{heading}**\n\n" + "\n".join(_items(lines[number + 1 :])))
            paragraph = []
            break
        if paragraph and _NAMED.match(line.strip()):
            paragraph[-1] += "  "  # a line break
        paragraph.append(escaped(line.strip()))
    parts.append("\n".join(paragraph))
    return "\n\n".join(part for part in parts if part)


def _items(lines: list[str]) -> list[str]:
    """One item a line that is not indented further than the first."""
    if not lines:
        return []
    margin = min(len(line) - len(line.lstrip()) for line in lines)
    items: list[str] = []
    for line in lines:
        own = len(line) - len(line.lstrip()) == margin and _NAMED.match(line.strip())
        if own or not items:
            items.append("- " + escaped(line.strip()))
        else:
            items[-1] += " " + escaped(line.strip())
    return items
