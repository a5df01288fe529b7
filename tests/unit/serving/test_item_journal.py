from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import RetryableError
from recsys.serving import item_journal
from recsys.serving.item_journal import DAMAGED, ItemJournal

A, B = {"item_id": "a", "title": "one"}, {"item_id": "b", "title": "zwei 😀", "categories": ["war"]}
VECTORS = np.array([[1.5, -2.0], [0.25, 3.0]], dtype=np.float32)


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    ItemJournal(tmp_path).append([A, B], {"s": VECTORS})
    again = ItemJournal(tmp_path)
    assert again.items == [A, B] and again.item("b") == B and again.item("c") is None and len(again) == 2
    np.testing.assert_array_equal(np.stack(again.vectors("s", ["b", "a"])), VECTORS[::-1])
    assert again.vectors("t", ["a"]) == [None]


def test_vectors_of_another_space_join_those_held(tmp_path: Path) -> None:
    journal = ItemJournal(tmp_path)
    journal.append([A], {"s": VECTORS[:1]})
    journal.append([A], {"t": VECTORS[1:]})
    again = ItemJournal(tmp_path)
    assert again.items == [A]
    assert [row is None for row in (*again.vectors("s", ["a"]), *again.vectors("t", ["a"]))] == [False, False]


def test_the_first_under_an_id_stays(tmp_path: Path) -> None:
    journal = ItemJournal(tmp_path)
    journal.append([A], {"s": VECTORS[:1]})
    journal.append([{**A, "title": "other"}], {"s": VECTORS[1:]})
    for one in (journal, ItemJournal(tmp_path)):
        assert one.items == [A]
        np.testing.assert_array_equal(one.vectors("s", ["a"])[0], VECTORS[0])


def test_services_that_share_a_folder_see_each_other(tmp_path: Path) -> None:
    mine, yours = ItemJournal(tmp_path), ItemJournal(tmp_path)
    mine.append([A], {"s": VECTORS[:1]})
    yours.append([B], {"s": VECTORS[1:]})  # under the same number
    for one in (mine, yours):
        one.refresh()
        assert {item["item_id"] for item in one.items} == {"a", "b"}
    assert len(list(tmp_path.glob("*.json"))) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "name", "pickle"])
def test_a_damaged_file_is_set_aside_and_the_rest_is_served(tmp_path: Path, damage: str) -> None:
    journal = ItemJournal(tmp_path)
    journal.append([A], {"s": VECTORS[:1]})
    journal.append([B], {"s": VECTORS[1:]})
    file = sorted(tmp_path.glob("*.json"))[0]
    data = file.read_bytes()
    if damage == "name":
        file.rename(tmp_path / "notes.json")
    else:
        bad = {"flip": data[:-5] + bytes([data[-5] ^ 1]) + data[-4:], "cut": data[:-1], "empty": b"", "pickle": b"cos\nsystem\n(S'false'\ntR."}
        file.write_bytes(bad[damage])
    again = ItemJournal(tmp_path)
    assert (again.items, again.damaged) == ([B], 1)
    assert len(list((tmp_path / DAMAGED).iterdir())) == 1
    again.append([A], {"s": VECTORS[:1]})
    assert {item["item_id"] for item in ItemJournal(tmp_path).items} == {"a", "b"}


def test_a_file_of_another_format_is_set_aside(tmp_path: Path) -> None:
    import hashlib

    data = json.dumps({"format": 99, "items": [A], "vectors": {}}).encode()
    (tmp_path / f"00000001-{hashlib.sha256(data).hexdigest()}.json").write_bytes(data)
    assert (ItemJournal(tmp_path).items, ItemJournal(tmp_path).damaged) == ([], 0)
    assert len(list((tmp_path / DAMAGED).iterdir())) == 1


def test_a_full_disk_takes_nothing_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = ItemJournal(tmp_path)

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(item_journal, "write_bytes", full)
    with pytest.raises(RetryableError, match="No space left on device; nothing was taken in"):
        journal.append([A], {"s": VECTORS[:1]})
    assert journal.items == []
    monkeypatch.undo()
    journal.append([A], {"s": VECTORS[:1]})
    assert ItemJournal(tmp_path).items == [A]


def test_without_a_folder_it_lives_in_memory() -> None:
    journal = ItemJournal(None)
    journal.append([A], {"s": VECTORS[:1]})
    journal.refresh()
    assert journal.items == [A]
