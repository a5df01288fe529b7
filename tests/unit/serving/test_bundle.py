from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from recsys.artifacts.artifact import Manifest, write_artifact
from recsys.errors import ArtifactError, SpaceMismatchError
from recsys.serving.bundle import build_index, load_bundle, save_bundle
from recsys.types import Queries
from tests.serving import making


def rewritten(source: Path, target: Path, change: object) -> Path:
    """A copy with another content and a manifest that is right for it."""

    def write(folder: Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        change(folder)  # type: ignore[operator]

    return write_artifact(target, Manifest(kind="bundle", key="k", config_hash="c"), write).path


def test_a_loaded_bundle_scores_what_the_saved_ranker_scored(tmp_path: Path) -> None:
    loaded = load_bundle(making.bundle(tmp_path / "b").path)
    queries = Queries(np.arange(making.N_USERS), making.histories())
    everything = np.arange(making.N_ITEMS)
    np.testing.assert_allclose(loaded.ranker.score(queries, everything), making.ranker().score(queries, everything), atol=1e-6)
    assert loaded.catalog.table.equals(making.catalog().table)
    assert loaded.users == making.users()
    assert [row.tolist() for row in loaded.histories] == [row.tolist() for row in making.histories()]
    assert (loaded.name, loaded.version) == ("small", "0" * 12)


@pytest.mark.parametrize("name", ["ranker/ranker.safetensors", "index/index.npy", "items.parquet", "users.parquet", "bundle.json", "encoders.json"])
def test_a_flipped_byte_is_refused(tmp_path: Path, name: str) -> None:
    file = making.bundle(tmp_path / "b").path / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match="sha256"):
        load_bundle(tmp_path / "b")


def test_an_index_of_another_ranker_is_refused(tmp_path: Path) -> None:
    mine, other = making.bundle(tmp_path / "a").path, making.bundle(tmp_path / "b", seed=1).path

    def swap_index(folder: Path) -> None:
        shutil.rmtree(folder / "index")
        shutil.copytree(other / "index", folder / "index")

    with pytest.raises(SpaceMismatchError, match="index holds embedding space"):
        load_bundle(rewritten(mine, tmp_path / "c", swap_index))


def test_a_ranker_of_other_spaces_is_refused(tmp_path: Path) -> None:
    def rename_space(folder: Path) -> None:
        file = folder / "bundle.json"
        file.write_text(file.read_text().replace(making.encoder().space.space_id, "0123456789abcdef"))

    with pytest.raises(SpaceMismatchError, match="0123456789abcdef"):
        load_bundle(rewritten(making.bundle(tmp_path / "a").path, tmp_path / "c", rename_space))


def test_an_index_over_other_items_is_refused(tmp_path: Path) -> None:
    from recsys.data.vocabulary import Vocabulary

    good = load_bundle(making.bundle(tmp_path / "a").path)

    def other_items(folder: Path) -> None:
        build_index(good.ranker.items(), good.space_id, Vocabulary([f"x{n}" for n in range(making.N_ITEMS)])).save(folder / "index")

    with pytest.raises(SpaceMismatchError, match="vocabulary"):
        load_bundle(rewritten(tmp_path / "a", tmp_path / "c", other_items))


def test_another_bundle_than_the_registered_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="registry recorded"):
        load_bundle(making.bundle(tmp_path / "a").path, key="f" * 64)


def test_another_kind_of_artifact_is_refused(tmp_path: Path) -> None:
    write_artifact(tmp_path / "s", Manifest(kind="split", key="k", config_hash="c"), lambda folder: None)
    with pytest.raises(ArtifactError, match="kind 'bundle'"):
        load_bundle(tmp_path / "s")


def test_parts_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    arguments = {"name": "n", "ranker": making.ranker(), "users": making.users(), "histories": making.histories(), "split_digest": "", "metrics": {}}
    with pytest.raises(SpaceMismatchError, match="signals that the ranker does not have"):
        save_bundle(tmp_path / "x", catalog=making.catalog(), encoders={"image": {}}, **arguments)
    with pytest.raises(SpaceMismatchError, match="40 items, the catalog has 39"):
        from recsys.data.catalog import ItemCatalog

        save_bundle(tmp_path / "x", catalog=ItemCatalog(making.catalog().table.head(39)), encoders={}, **arguments)
    assert not (tmp_path / "x").exists()
