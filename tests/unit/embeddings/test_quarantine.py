import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.embeddings.content import Content, keys_of, of_texts
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.limits import LimitsConfig
from recsys.embeddings.quarantine import MANY, MAX_REASON, Quarantine
from recsys.embeddings.refusals import encode_each
from recsys.errors import ArtifactError, DataError, ImageError, NonFiniteError
from recsys.types import FloatArray


class Picky(HashedEncoder):
    """Refuses texts that begin with "bad"; counts its calls and a token a text."""

    def __init__(self, kind: type[Exception] = DataError) -> None:
        super().__init__(8)
        self.kind, self.batches, self.tokens = kind, 0, 0

    def encode(self, contents: list[Content]) -> FloatArray:  # type: ignore[override]
        self.batches += 1
        for content in contents:
            if content.text.startswith("bad"):
                raise self.kind(f"cannot take {content}")
        self.tokens += len(contents)
        return super().encode(contents)


def test_reasons_are_kept_and_forgotten(tmp_path: Path) -> None:
    keys = keys_of(of_texts("abc"))
    quarantine = Quarantine(tmp_path / "q")
    assert len(quarantine) == 0 and quarantine.has(keys).tolist() == [False] * 3
    quarantine.add({keys[0].tobytes(): "no good", keys[2].tobytes(): "line\nand \x1b[31m colour " + "x" * 1000})
    for opened in (quarantine, Quarantine(tmp_path / "q")):
        assert opened.has(keys).tolist() == [True, False, True] and len(opened) == 2
        assert opened.reason(keys[0].tobytes()) == "no good" and opened.reason(keys[1].tobytes()) is None
        reason = opened.reason(keys[2].tobytes())
        assert reason is not None and reason.isprintable() and len(reason) == MAX_REASON and reason.startswith("line and [31m colour xxx")
    quarantine.forget(keys[:1])
    assert Quarantine(tmp_path / "q").has(keys).tolist() == [False, False, True]
    quarantine.forget()
    assert len(Quarantine(tmp_path / "q")) == 0 and not list((tmp_path / "q").glob("*.json"))


def test_many_small_files_are_merged(tmp_path: Path) -> None:
    one, two = Quarantine(tmp_path), Quarantine(tmp_path)
    keys = keys_of(of_texts(map(str, range(2 * MANY))))
    for number, key in enumerate(keys):
        (one if number % 2 else two).add({key.tobytes(): str(number)})
    assert len(list(tmp_path.glob("*.json"))) < MANY
    opened = Quarantine(tmp_path)
    assert [opened.reason(key.tobytes()) for key in keys] == [str(number) for number in range(2 * MANY)]


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"zz": "no hex"}')
    with pytest.raises(ArtifactError, match="delete this file"):
        Quarantine(tmp_path)


@pytest.mark.parametrize("kind", [DataError, NonFiniteError])
@given(st.lists(st.booleans(), max_size=40))
def test_bisection_finds_exactly_the_bad_rows(kind: type[Exception], bad: list[bool]) -> None:
    contents = of_texts(f"{'bad' if one else 'good'} {row}" for row, one in enumerate(bad))
    encoder = Picky(kind)
    found = encode_each(encoder, contents)
    assert [row for row, _ in sorted(found.refused)] == [row for row, one in enumerate(bad) if one]
    assert found.kept.tolist() == [row for row, one in enumerate(bad) if not one] and found.tokens == len(found.kept)
    np.testing.assert_array_equal(found.vectors, HashedEncoder(8).encode([contents[row] for row in found.kept]))
    assert all(": cannot take 'bad" in reason for _, reason in found.refused)
    if sum(bad) == 1:
        assert encoder.batches <= 2 * np.ceil(np.log2(len(bad))) + 1


def test_a_reason_begins_with_its_kind() -> None:
    for kind, begins in ((DataError, "refused by the encoder: "), (ImageError, "picture not decoded: "), (NonFiniteError, "vector not finite: ")):
        assert encode_each(Picky(kind), of_texts(["bad"])).refused == ((0, f"{begins}cannot take 'bad'"),)


def test_other_errors_are_not_a_contents_fault() -> None:
    with pytest.raises(MemoryError):
        encode_each(Picky(MemoryError), of_texts(["bad"]))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", None),
        ("two\tlines\r\nof Ünïcödé 漢字 🎬", None),
        ("x" * 999_999, None),
        ("x" * 1_000_000, "text too long: 1,000,000 bytes"),
        ("漢" * 333_334, "text too long: 1,000,002 bytes"),
        ("nul \x00 inside", r"control character: U\+0000 in the text at position 4"),
        ("\x1b[31mred", r"U\+001B"),
        ("del\x7f", r"U\+007F"),
        ("\x85", r"U\+0085"),
        ("lone \ud800", r"U\+D800"),
    ],
)
def test_limits_of_texts(text: str, reason: str | None) -> None:
    found = LimitsConfig().refusal(text)
    if reason is None:
        assert found is None
    else:
        assert found is not None

        assert re.search(reason, found), found
    assert LimitsConfig(max_text_bytes=4).refusal("abc") is None and LimitsConfig(max_text_bytes=4).refusal("abcd") is not None
