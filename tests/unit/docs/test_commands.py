"""Every command in the documentation is one that exists, with options that it has."""

from __future__ import annotations

import re
from typing import Any

import pytest

from benchmarks.__main__ import NAMES
from infra.docs import blocks
from infra.docs.__main__ import ROOT
from infra.docs.cli_reference import group
from tests.unit.docs.reading import PAGES


def resolved(words: list[str]) -> tuple[Any, list[str]]:
    """The command that `recsys WORDS` means, and what is left for it."""
    command = group()
    while hasattr(command, "commands"):
        assert words, "a group alone"
        assert words[0] in command.commands, f"no command {words[0]!r}; there are: {', '.join(command.commands)}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if "recsys " in text])
def test_recsys(page: str) -> None:
    for words in blocks.commands(PAGES[page]):
        if words[0] == "recsys":
            command, rest = resolved(list(words[1:]))
            command.make_context(words[1], rest)
    for text in blocks.inline_commands(PAGES[page]):
        words = [word for word in text.split()[1:] if word not in ("...", "…")]
        if not words or words[0].startswith("-"):
            continue
        if hasattr(group().commands.get(words[0]), "commands") and len(words) == 1:
            continue
        command, rest = resolved(words)
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
        assert not [word for word in rest if word.startswith("-") and word not in options], text


def test_an_option_that_is_not_there_is_found() -> None:
    command, rest = resolved(["board", "ml-100k", "--nonsense"])
    with pytest.raises(Exception, match="nonsense"):
        command.make_context("board", rest)


def test_make_and_benchmarks() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page, text in PAGES.items():
        for words in blocks.commands(text):
            if words[0] == "make":
                named = [word for word in words[1:] if "=" not in word]
                assert set(named) <= targets, f"{page}: make {named}"
            if "benchmarks" in words and "-m" in words:
                named = [word for word in words[words.index("benchmarks") + 1 :] if not word.startswith("-")]
                assert set(named) <= set(NAMES), f"{page}: {named}"
