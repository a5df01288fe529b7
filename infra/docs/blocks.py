"""The code blocks of a page, as the tests run and parse them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^(?P<margin> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=margin)```", re.MULTILINE | re.DOTALL)
_ENDS = {"|", "||", "&&", "&", ";", ">", ">>", "<", "2>&1"}
"""What ends the words of a command; what follows is another, or a file."""
_INLINE = re.compile(r"`(recsys [^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """number: of its language on the page, from 0.  line: of its first line of code, from 1."""

    language: str
    number: int
    line: int
    code: str


def blocks(text: str, *languages: str) -> list[Block]:
    found: list[Block] = []
    for match in _FENCE.finditer(text):
        language = match["language"]
        if language in languages:
            number = sum(block.language == language for block in found)
            margin = len(match["margin"])
            code = "".join(line[margin:] for line in match["code"].splitlines(keepends=True))
            found.append(Block(language, number, text.count("\n", 0, match.start()) + 2, code))
    return found


def commands(text: str) -> Iterator[tuple[str, ...]]:
    """The words of the first command of each line of the page's shell blocks, without comments and without assignments before it."""
    plain = {block.line: block for block in blocks(text, "sh", "bash", "")}
    for block in plain.values():
        for line in block.code.replace("\\\n", " ").splitlines():
            try:
                words = shlex.split(line, comments=True)
            except ValueError:
                continue  # no line of a shell
            while words and re.match(r"^[A-Z_]+=", words[0]):
                words = words[1:]
            ends = [place for place, word in enumerate(words) if word in _ENDS]
            if words := words[: ends[0]] if ends else words:
                yield tuple(words)


def inline_commands(text: str) -> list[str]:
    """`recsys ...` in the running text: often a beginning of a command, with names in capitals for what the reader puts in."""
    return _INLINE.findall(_FENCE.sub("", text))
