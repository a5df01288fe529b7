from pathlib import Path

import numpy as np
import pytest

from recsys.artifacts.atomic import read_json, write_json
from recsys.errors import ArtifactError, NonFiniteError, SpaceMismatchError
from recsys.ranking.index import ItemIndex
from recsys.ranking.topk import top_k

VALUES = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)


def test_exact_search_equals_the_product():
    scores, found = ItemIndex.build(VALUES, "a").search(QUERIES, 10)
    expected, columns = top_k(QUERIES @ VALUES.T, 10)
    np.testing.assert_array_equal(found, columns)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert found.dtype == np.int64
    assert ItemIndex.build(VALUES, "a").search(QUERIES, 999)[1].shape == (5, 300)


@pytest.mark.parametrize("exact_below", [10, 1000])
def test_saved_and_loaded_it_answers_the_same(tmp_path: Path, exact_below: int):
    index = ItemIndex.build(VALUES, "a", "v", exact_below=exact_below)
    index.save(tmp_path)
    loaded = ItemIndex.load(tmp_path, space_id="a", vocabulary_digest="v")
    assert (loaded.n_items, loaded.dim, loaded.kind) == (300, 16, "hnsw" if exact_below == 10 else "flat")
    np.testing.assert_array_equal(loaded.search(QUERIES, 7)[1], index.search(QUERIES, 7)[1])
    assert np.load(tmp_path / "index.npy", allow_pickle=False).dtype == np.uint8


def test_above_the_limit_the_graph_finds_nearly_all():
    found = ItemIndex.build(VALUES, "a", exact_below=10).search(QUERIES, 10)[1]
    exact = ItemIndex.build(VALUES, "a").search(QUERIES, 10)[1]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)]) > 0.9


def test_refuses_another_space_vocabulary_and_width(tmp_path: Path):
    index = ItemIndex.build(VALUES, "a", "v")
    index.save(tmp_path)
    with pytest.raises(SpaceMismatchError, match="'a'.*'b'"):
        ItemIndex.load(tmp_path, space_id="b")
    with pytest.raises(SpaceMismatchError, match="vocabulary"):
        ItemIndex.load(tmp_path, space_id="a", vocabulary_digest="w")
    with pytest.raises(SpaceMismatchError, match="dimensions"):
        index.search(QUERIES[:, :8], 3)
    with pytest.raises(NonFiniteError):
        ItemIndex.build(VALUES * np.nan, "a")


def test_damaged_files_are_refused(tmp_path: Path):
    ItemIndex.build(VALUES, "a").save(tmp_path)
    write_json(tmp_path / "index.json", {**read_json(tmp_path / "index.json"), "n_items": 7})
    with pytest.raises(ArtifactError, match="two builds"):
        ItemIndex.load(tmp_path, space_id="a")
    (tmp_path / "index.npy").unlink()
    with pytest.raises(ArtifactError, match="not a readable"):
        ItemIndex.load(tmp_path, space_id="a")
