"""Tables wider than the terminal: every cell whole, no line longer than the terminal."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipelines.commands.wide_table import LONGEST, print_wide


def shown(heads: list[str], rows: list[list[str]], width: int, title: str | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_wide(console, heads, rows, title=title)
    return console.file.getvalue().splitlines()


def cells_of(lines: list[str]) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]


def test_a_table_that_fits_is_one() -> None:
    lines = shown(["model", "a b"], [["one", "1"], ["two", "2"]], 40, title="title")
    assert lines[0].strip() == "title" and lines[2].split() == ["┃", "model", "┃", "a", "b", "┃"]
    assert cells_of(lines) == [["one", "1"], ["two", "2"]]


def test_what_does_not_fit_goes_below_with_the_first_column_again() -> None:
    lines = shown(["model", "first figure", "second", "third"], [["one", "0.1 ± 0.2", "22222222", "3"]], 32)
    assert max(map(len, lines)) <= 32
    assert cells_of(lines) == [["one", "0.1 ± 0.2", "22222222"], ["one", "3"]]
    assert any("first" in line and "figure" not in line for line in lines)  # a head breaks between its words


def test_styles_and_brackets_count_for_nothing() -> None:
    lines = shown(["model", "a"], [["one", "[bold green]0.1 *[/]\n\\[0.0, 0.2]"]], 26)
    assert cells_of(lines) == [["one", "0.1 *"], ["", "[0.0, 0.2]"]]


@given(st.lists(st.lists(st.text("abc ", min_size=0, max_size=LONGEST), min_size=5, max_size=5), max_size=4), st.integers(LONGEST * 2 + 8, 200))
def test_no_cell_is_lost_and_no_line_is_too_long(rows: list[list[str]], width: int) -> None:
    lines = shown(["model", "a", "b", "c", "d"], rows, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text and all(word in text for row in rows for cell in row for word in cell.split())
    assert sorted(head for line in lines if "┃" in line for head in line.replace("┃", " ").split() if head != "model") == ["a", "b", "c", "d"]


@pytest.mark.parametrize("width", [5, 20])
def test_a_terminal_too_narrow_for_anything_still_shows_two_columns(width: int) -> None:
    assert len(cells_of(shown(["model", "a"], [["one", "1"]], width))) >= 1
