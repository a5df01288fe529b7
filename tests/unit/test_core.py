"""Configuration, artifacts, vocabularies, sequences, seeds: what everything else stands on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.artifacts.artifact import MANIFEST, Artifact, Manifest, write_artifact
from recsys.artifacts.atomic import read_json, read_npy, write_bytes, write_json, write_npy
from recsys.config import Config, apply_overrides, digest_of
from recsys.data.sequences import Sequences
from recsys.data.split import Split
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError, ConfigError, SpaceMismatchError, UnknownIdError
from recsys.rng import derive_seed, numpy_generator, torch_generator
from recsys.types import UNKNOWN_NUM, Queries


class Inner(Config):
    epochs: int = 3
    rate: float = 0.1


class Outer(Config):
    name: str = "x"
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()


# --- configuration


def test_unknown_key_is_answered_with_a_hint_and_the_known_keys() -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml: inner\.epoch: unknown key, did you mean 'epochs'\? Known keys: epochs, rate"):
        Outer.parse({"inner": {"epoch": 3}}, source="run.yaml")


def test_unknown_key_in_a_list_and_at_the_top() -> None:
    with pytest.raises(ConfigError, match=r"several\.1\.zzz: unknown key Known keys: epochs, rate|several\.1\.zzz: unknown key.* Known keys: epochs, rate"):
        Outer.parse({"several": [{}, {"zzz": 1}]})
    with pytest.raises(ConfigError, match="Known keys: inner, name, several"):
        Outer.parse({"zzz": 1})


@pytest.mark.parametrize("value", ["many", float("nan"), float("inf"), None])
def test_a_value_of_another_type_is_shown(value: object) -> None:
    with pytest.raises(ConfigError, match=r"inner\.rate: .*\(got "):
        Outer.parse({"inner": {"rate": value}})


@pytest.mark.parametrize("document", [None, 3, "text", [1]])
def test_a_document_that_is_no_mapping(document: object) -> None:
    with pytest.raises(ConfigError):
        Outer.parse(document)


def test_overrides_reach_into_mappings_and_lists_and_leave_the_original_alone() -> None:
    document = {"inner": {"epochs": 1}, "several": [{"epochs": 1}, {"epochs": 2}]}
    changed = apply_overrides(document, ["inner.epochs=5", "several.1.rate=0.5", "several.0={epochs: 9}", "new.key=[a, 1, null]", "text=a=b"])
    assert changed == {"inner": {"epochs": 5}, "several": [{"epochs": 9}, {"epochs": 2, "rate": 0.5}], "new": {"key": ["a", 1, None]}, "text": "a=b"}
    assert document == {"inner": {"epochs": 1}, "several": [{"epochs": 1}, {"epochs": 2}]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "expected key.sub_key=value"),
        ("=3", "expected key.sub_key=value"),
        ("a=[", "not YAML"),
        ("several.7.rate=1", "not a position in a list of 1"),
        ("several.7=1", "not a position in a list of 1"),
        ("several.x=1", "not a position"),
        ("name.deeper=1", "holds a single value"),
        ("name.deeper.still=1", "nothing below"),
    ],
)
def test_bad_overrides(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides({"name": "x", "several": [{}]}, [override])


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2", "", "\x00"])
def test_unreadable_files_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        Outer.read(path)


def test_missing_file_folder_and_other_encoding(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(ConfigError, match=path.name):
            Outer.read(path)
        with pytest.raises(ConfigError, match=path.name):
            Outer.read(str(path))


def test_configs_are_frozen_and_digests_follow_the_values() -> None:
    with pytest.raises(Exception, match="frozen"):
        Inner().epochs = 4  # type: ignore[misc]
    assert Outer().digest() == Outer.parse({"inner": {"rate": 0.1, "epochs": 3}}).digest()
    assert Outer().digest() != Outer(name="y").digest()
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="JSON"):
        digest_of(float("nan"))


# --- artifacts

MANIFEST_OF_TEST = Manifest(kind="test", key="k", config_hash="c")


def files(folder: Path) -> Mapping[str, Any]:
    write_npy(folder / "values.npy", np.arange(6, dtype=np.float32))
    (folder / "deep").mkdir()
    write_json(folder / "deep" / "facts.json", {"n": 6})
    return {"n": 6}


def test_artifact_round_trip(tmp_path: Path) -> None:
    written = write_artifact(tmp_path / "a", MANIFEST_OF_TEST, files)
    opened = Artifact.open(tmp_path / "a", kind="test")
    assert opened == written
    assert set(opened.manifest.files) == {"values.npy", "deep/facts.json"}
    assert opened.manifest.metadata == {"n": 6}
    assert read_npy(opened.file("values.npy")).tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ArtifactError, match=r"no file 'other'; it holds: deep/facts\.json, values\.npy"):
        opened.file("other")


@pytest.mark.parametrize("name", ["values.npy", "deep/facts.json"])
def test_one_flipped_bit_is_refused(tmp_path: Path, name: str) -> None:
    write_artifact(tmp_path / "a", MANIFEST_OF_TEST, files)
    file = tmp_path / "a" / name
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="sha256 differs"):
        Artifact.open(tmp_path / "a")


def test_missing_file_other_kind_and_damaged_manifest_are_refused(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a", MANIFEST_OF_TEST, files)
    with pytest.raises(ArtifactError, match="expected an artifact of kind 'split', found 'test'"):
        Artifact.open(tmp_path / "a", kind="split")
    with pytest.raises(ArtifactError, match="not an artifact"):
        Artifact.open(tmp_path / "none")
    (tmp_path / "a" / "values.npy").unlink()
    with pytest.raises(ArtifactError, match=r"'values\.npy' is missing"):
        Artifact.open(tmp_path / "a")
    manifest = read_json(tmp_path / "a" / MANIFEST)
    write_json(tmp_path / "a" / MANIFEST, {**manifest, "schema_version": 99})
    with pytest.raises(ArtifactError, match="schema version 99"):
        Artifact.open(tmp_path / "a")
    for damage in ("{", '{"surprise": 1}'):
        (tmp_path / "a" / MANIFEST).write_text(damage)
        with pytest.raises(ArtifactError, match="not readable"):
            Artifact.open(tmp_path / "a")


def test_a_crash_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def crash(folder: Path) -> None:
        files(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_artifact(tmp_path / "a", MANIFEST_OF_TEST, crash)
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_of_one_artifact_the_first_wins(tmp_path: Path) -> None:
    def slow(folder: Path) -> None:
        files(folder)
        write_artifact(tmp_path / "a", MANIFEST_OF_TEST, files)
        (folder / "late").touch()

    assert "late" not in write_artifact(tmp_path / "a", MANIFEST_OF_TEST, slow).manifest.files
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "f", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_npy_refuses_objects_both_ways(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pickle"):
        write_npy(tmp_path / "o.npy", np.array([{}], dtype=object))
    with (tmp_path / "o.npy").open("wb") as file:
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickle"):
        read_npy(tmp_path / "o.npy")


# --- vocabularies

IDS = st.lists(st.text(min_size=0, max_size=8), unique=True, max_size=20)


@given(IDS)
def test_ids_and_numbers_are_inverse(ids: list[str]) -> None:
    vocabulary = Vocabulary(ids)
    nums = vocabulary.nums(ids)
    assert nums.tolist() == list(range(len(ids)))
    assert vocabulary.ids_of(nums) == ids


@given(IDS, IDS)
def test_a_vocabulary_only_grows_at_its_end(ids: list[str], more: list[str]) -> None:
    vocabulary = Vocabulary(ids)
    grown = vocabulary.extended(more)
    assert grown.ids[: len(ids)] == tuple(ids)
    assert set(grown.ids) == {*ids, *more}
    assert grown.prefix_digest(len(ids)) == vocabulary.digest
    grown.require_prefix(len(vocabulary), vocabulary.digest, what="the model")


@given(IDS, IDS)
def test_equal_digests_mean_equal_ids(left: list[str], right: list[str]) -> None:
    assert (Vocabulary(left).digest == Vocabulary(right).digest) == (left == right)


def test_shrunken_or_reordered_vocabularies_are_refused() -> None:
    vocabulary = Vocabulary(["a", "b", "c"])
    for other in (Vocabulary(["a", "b"]), Vocabulary(["b", "a", "c"]), Vocabulary(["ab", "", "c"])):
        with pytest.raises(SpaceMismatchError, match="the index was made on another vocabulary"):
            other.require_prefix(3, vocabulary.digest, what="the index")


def test_unknown_ids_are_all_named() -> None:
    vocabulary = Vocabulary(["a"])
    assert vocabulary.nums_or_unknown(["a", "z"]).tolist() == [0, UNKNOWN_NUM]
    with pytest.raises(UnknownIdError, match="unknown item_id: 'y', 'z'; the vocabulary holds 1 ids") as caught:
        vocabulary.nums(["y", "a", "z"])
    assert caught.value.ids == ["y", "z"]
    with pytest.raises(UnknownIdError, match="unknown user_id: 'u'"):
        vocabulary.num("u", noun="user_id")
    with pytest.raises(ValueError, match="unique"):
        Vocabulary(["a", "a"])


# --- sequences, queries, seeds


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=8), st.data())
def test_sequences_are_the_rows_they_were_made_of(rows: list[list[int]], data: st.DataObject) -> None:
    sequences = Sequences.of_rows([np.array(row, dtype=np.int64) for row in rows])
    assert [row.tolist() for row in sequences] == rows
    assert [sequences[k].tolist() for k in range(len(rows))] == rows
    assert sequences.lengths.tolist() == [len(row) for row in rows]
    assert sequences.row_nums().tolist() == [k for k, row in enumerate(rows) for _ in row]
    assert sequences.counts(10).tolist() == [sum(row.count(item) for row in rows) for item in range(10)]
    start, stop = data.draw(st.integers(-9, 9)), data.draw(st.integers(-9, 9))
    assert [row.tolist() for row in sequences[start:stop]] == rows[start:stop]


def test_sequences_refuse_what_is_not_there_and_cannot_be_changed() -> None:
    sequences = Sequences.of_rows([np.array([1, 2]), np.array([3])])
    assert sequences[-1].tolist() == [3]
    for index in (2, -3):
        with pytest.raises(IndexError):
            sequences[index]
    with pytest.raises(ValueError, match="read-only"):
        sequences[0][0] = 7
    with pytest.raises(ValueError, match="offsets"):
        Sequences(np.array([0, 2, 1]), np.array([1]))


def test_queries_need_a_history_each() -> None:
    with pytest.raises(ValueError, match="2 users but 1 histories"):
        Queries(np.array([0, 1]), [np.array([1])])
    assert Queries.of_history(np.array([4])).user_nums.tolist() == [UNKNOWN_NUM]


def test_seeds_depend_on_the_name_alone() -> None:
    assert derive_seed(7, "rank") == derive_seed(7, "rank")
    assert len({derive_seed(seed, name) for seed in (0, 1) for name in ("a", "b", "a/b")}) == 6
    assert 0 <= derive_seed(0, "x") < 2**63
    assert numpy_generator(7, "rank").random() == numpy_generator(7, "rank").random()
    assert torch_generator(7, "rank").initial_seed() == derive_seed(7, "rank")


def test_the_tiny_split_is_what_it_says(tiny_split: Split, tiny_cold_split: Split) -> None:
    assert tiny_split.train[0].tolist() == [0, 1, 2, 3]
    assert (tiny_split.validation.targets[0], tiny_split.test.targets[0]) == (4, 5)
    assert tiny_split.item_counts()[11] == 0 and len(tiny_split.cold) == 0
    assert tiny_cold_split.held_out.sum() == 2 and len(tiny_cold_split.cold) > 0
    assert tiny_cold_split.item_counts()[tiny_cold_split.held_out].sum() == 0
