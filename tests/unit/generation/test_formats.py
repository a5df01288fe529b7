"""What a model wrote, to values: the usual ways in which small models go wrong, each planted."""

from __future__ import annotations

import json
import time
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from recsys.errors import ConfigError
from recsys.generation.formats import JsonFormat, LineFormat, ModelFormat, UnusableAnswerError, first_object, one_of
from recsys.generation.repetition import is_repetitive

GENRES = ["Comedy", "Crime", "Science Fiction"]


class Film(BaseModel):
    genre: Annotated[str, one_of(GENRES)]
    why: str = Field(max_length=300)


class Ranked(BaseModel):
    labels: list[Annotated[str, one_of(GENRES)]] = Field(alias="Likely genres")
    year: int | None = None
    who_enjoys_it: str


GOOD = Film(genre="Crime", why="A heist.")


@pytest.mark.parametrize(
    "text",
    [
        '{"genre": "Crime", "why": "A heist."}',
        'Sure! Here it is:\n```json\n{"genre": "crime.", "why": "A heist."}\n```\nAnything else?',
        'In {braces}: {"why": "A heist.", "genre": "CRIME"} {"genre": "Comedy", "why": "A second object"}',
    ],
)
def test_the_first_object_is_found(text: str) -> None:
    assert ModelFormat(Film).parse(text) == GOOD


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON object"),
        ("Crime", "no JSON object"),
        ('["Crime"]', "no JSON object"),
        ('{"genre": "Crime", "why": "A hei', "no JSON object"),
        ("{'genre': 'Crime'}", "no JSON object"),
        ('{"genre": NaN}', "no JSON object"),
        ("{" * 100_00, "repetition"),
        ('{"a":' * 3000, "repetition"),
        ('{"genre": ' + "1" * 5000 + "}", "repetition"),
        ("good " * 10_000, "repetition"),
        (" ".join(map(str, range(10_000))), "too long"),
        ('{"genre": "Crime"}', "schema: why missing"),
        ('{"genre": "Western", "why": "x"}', "schema: genre value_error"),
        ('{"genre": ["Crime"], "why": "x"}', "schema: genre value_error"),
        ('{"genre": "Crime", "why": "' + "really good and " * 15 + '"}', "repetition"),
        ('{"genre": "Crime", "why": "\\ud800"}', "broken text"),
    ],
)
def test_unusable_objects_have_a_reason(text: str, reason: str) -> None:
    started = time.perf_counter()
    with pytest.raises(UnusableAnswerError) as caught:
        ModelFormat(Film).parse(text)
    assert str(caught.value) == reason
    assert time.perf_counter() - started < 2


@given(
    st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=20), st.booleans(), st.lists(st.integers(), max_size=3)), max_size=4),
    st.text(max_size=20),
)
def test_any_object_is_found_in_any_words(value: dict[str, object], words: str) -> None:
    words = words.replace("{", "")
    assert first_object(f"{words}{json.dumps(value)}{words}") == value


@given(st.text(max_size=200))
def test_no_text_raises_anything_else(text: str) -> None:
    for form in (ModelFormat(Film), LineFormat(Ranked), JsonFormat({"type": "object", "required": ["a"]})):
        with pytest.raises(UnusableAnswerError):
            form.parse(text)


def test_json_schema() -> None:
    form = JsonFormat({"type": "object", "properties": {"genres": {"type": "array", "items": {"enum": GENRES}}}, "required": ["genres"]})
    assert form.parse('so: {"genres": ["Crime"], "more": 1}') == {"genres": ["Crime"], "more": 1}
    assert '"genres"' in form.reminder
    for text, reason in (('{"genres": ["crime"]}', "schema: genres.0 fails enum"), ("{}", "schema: object fails required")):
        with pytest.raises(UnusableAnswerError, match=reason):
            form.parse(text)
    with pytest.raises(ConfigError, match="not a JSON schema"):
        JsonFormat({"type": "nothing"})


def test_lines() -> None:
    text = (
        "Certainly.\n\n- **Likely Genres:** 1. crime, 2. Comedy;\n3) science fiction\n* year : 1995\nWho enjoys it: All who like\n  a heist: many.\nYear: 2001"
    )
    assert LineFormat(Ranked).parse(text) == Ranked.model_validate(
        {"Likely genres": ["Crime", "Comedy", "Science Fiction"], "year": 1995, "who_enjoys_it": "All who like\n  a heist: many."}
    )
    assert LineFormat(Ranked).reminder.endswith("Likely genres: ...\nYear: ...\nWho enjoys it: ...")
    assert LineFormat(Film).parse("Genre: Crime\nWhy: A heist.") == GOOD


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I think it is a crime film.", "no labelled line"),
        ("genre Crime", "no labelled line"),
        ("Genre:\nWhy: ", "no labelled line"),
        ("Genre: ...\nWhy: …", "no labelled line"),
        ("Genre: Western\nWhy: x", "schema: genre value_error"),
        ("Genre: Crime", "schema: why missing"),
        ("Genre: Crime\nWhy: " + "a heist " * 30, "repetition"),
        ("heist, " * 500, "repetition"),
    ],
)
def test_unusable_lines_have_a_reason(text: str, reason: str) -> None:
    with pytest.raises(UnusableAnswerError) as caught:
        LineFormat(Film).parse(text)
    assert str(caught.value) == reason


def test_labels_must_differ() -> None:
    for labels in ([], ["Crime", "crime"]):
        with pytest.raises(ConfigError, match="labels"):
            one_of(labels)


PROSE = (
    "A group of professional bank robbers start to feel the heat from the police when they unknowingly leave a clue at their latest heist. "
    "Those who enjoy slow, careful stories about men on both sides of the law will like it very, very much; it is long and sad."
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROSE, False), ("", False), ("no no no no", False), ("a" * 64, True), ("ab " * 40, True), (f"{PROSE} {'It is good. ' * 8}", True),
        (PROSE * 20, True), ("Ja. " * 2500, True), (json.dumps({"a": PROSE}, indent=2), False), (PROSE + PROSE, False),
    ],
)  # fmt: skip
def test_repetition(text: str, expected: bool) -> None:
    assert is_repetitive(text) is expected
