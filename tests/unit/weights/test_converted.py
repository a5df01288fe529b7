"""The kept conversion of a GGUF: used only whole, replaced when damaged, never required."""

from pathlib import Path

import pytest

from recsys.weights import converted


class Saver:
    """Stands in for a model or tokenizer: writes one file."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text

    def save_pretrained(self, folder: Path) -> None:
        (folder / self.name).write_text(self.text)


def test_stored_whole_and_a_flipped_byte_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    assert not converted.is_whole(folder)
    assert converted.store(folder, Saver("weights", "abc"), Saver("tokens", "def"))
    assert converted.is_whole(folder)
    (folder / "weights").write_text("abd")
    assert not converted.is_whole(folder)
    assert converted.store(folder, Saver("weights", "abc"), Saver("tokens", "def"))
    assert converted.is_whole(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_the_first_of_two_writers_wins(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    converted.store(folder, Saver("weights", "first"), Saver("tokens", "x"))
    converted.store(folder, Saver("weights", "second"), Saver("tokens", "x"))
    assert (folder / "weights").read_text() == "first"


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(converted, "write_json", full)
    assert not converted.store(tmp_path / "model", Saver("weights", "abc"), Saver("tokens", "def"))
    assert list(tmp_path.iterdir()) == []
