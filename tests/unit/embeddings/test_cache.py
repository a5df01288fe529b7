import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.embeddings.cache import EmbeddingCache
from recsys.embeddings.cache_index import KeyIndex
from recsys.embeddings.content import keys_of, of_texts
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.shard import Shard
from recsys.errors import ArtifactError, NonFiniteError


@pytest.fixture
def encoder() -> HashedEncoder:
    return HashedEncoder(8)


def test_put_then_get_in_any_order_and_after_reopening(tmp_path: Path, encoder: HashedEncoder) -> None:
    cache = EmbeddingCache(tmp_path, encoder.space)
    assert cache.missing(of_texts(["b", "a", "b"])) == of_texts(["b", "a"])
    cache.put(of_texts(["a", "b"]), encoder.encode(of_texts(["a", "b"])))
    cache.put(of_texts(["b", "c"]), encoder.encode(of_texts(["b", "c"])))
    for opened in (cache, EmbeddingCache(tmp_path, encoder.space)):
        np.testing.assert_array_equal(opened.get(of_texts(["c", "a", "a", "b"])), encoder.encode(of_texts(["c", "a", "a", "b"])))
        assert opened.missing(of_texts(["a", "d"])) == of_texts(["d"]) and len(opened) == 3


def test_another_space_sees_nothing(tmp_path: Path, encoder: HashedEncoder) -> None:
    EmbeddingCache(tmp_path, encoder.space).put(of_texts(["a"]), encoder.encode(of_texts(["a"])))
    assert EmbeddingCache(tmp_path, HashedEncoder(8, template="x").space).missing(of_texts(["a"])) == of_texts(["a"])


def test_one_flipped_byte_is_refused(tmp_path: Path, encoder: HashedEncoder) -> None:
    EmbeddingCache(tmp_path, encoder.space).put(of_texts(["a"]), encoder.encode(of_texts(["a"])))
    shard = next((tmp_path / encoder.space.space_id).glob("*.npy"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ArtifactError, match="delete this file"):
        EmbeddingCache(tmp_path, encoder.space)


def test_missing_text_and_bad_vectors_are_errors(tmp_path: Path, encoder: HashedEncoder) -> None:
    cache = EmbeddingCache(tmp_path, encoder.space)
    with pytest.raises(ArtifactError, match="1 of 1 contents"):
        cache.get(of_texts(["a"]))
    with pytest.raises(NonFiniteError):
        cache.put(of_texts(["a"]), np.full((1, 8), np.nan, dtype=np.float32))
    with pytest.raises(ValueError):
        cache.put(of_texts(["a"]), np.zeros((1, 7), dtype=np.float32))
    assert cache.missing(of_texts(["a"])) == of_texts(["a"])


def test_many_small_shards_become_one_and_nothing_is_lost(tmp_path: Path, encoder: HashedEncoder) -> None:
    cache = EmbeddingCache(tmp_path, encoder.space, many=4)
    texts = of_texts(f"text {i}" for i in range(40))
    for start in range(0, 40, 2):
        cache.put(texts[start : start + 2], encoder.encode(texts[start : start + 2]))
        assert len(list(cache.folder.glob("*.npy"))) < 8
    cache.compact()
    for opened in (cache, EmbeddingCache(tmp_path, encoder.space)):
        np.testing.assert_array_equal(opened.get(texts), encoder.encode(texts))
        assert len(opened) == 40


def test_big_shards_are_left_alone(tmp_path: Path, encoder: HashedEncoder) -> None:
    cache = EmbeddingCache(tmp_path, encoder.space, big=64 * 10, many=1000)
    texts = of_texts(f"text {i}" for i in range(100))
    for start in range(0, 100, 2):
        cache.put(texts[start : start + 2], encoder.encode(texts[start : start + 2]))
    shards = sorted(cache.folder.glob("*.npy"))
    assert len(shards) == 10
    cache.put(of_texts(["another"]), encoder.encode(of_texts(["another"])))
    cache.compact()
    assert set(shards) < set(cache.folder.glob("*.npy")) and len(EmbeddingCache(tmp_path, encoder.space, big=640)) == 101
    np.testing.assert_array_equal(EmbeddingCache(tmp_path, encoder.space, big=640).get(texts), encoder.encode(texts))


def test_equal_content_makes_equal_shards(tmp_path: Path, encoder: HashedEncoder) -> None:
    names = []
    for order, root in ((["a", "b", "c"], "x"), (["c", "a", "b"], "y")):
        cache = EmbeddingCache(tmp_path / root, encoder.space)
        cache.put(of_texts(order), encoder.encode(of_texts(order)))
        names.append([path.name for path in cache.folder.glob("*.npy")])
    assert names[0] == names[1] and len(names[0]) == 1


@pytest.mark.parametrize("killed_at", ["merged, none removed", "one removed"])
def test_a_kill_while_merging_loses_nothing(tmp_path: Path, encoder: HashedEncoder, killed_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = EmbeddingCache(tmp_path, encoder.space)
    for text in ("a", "b", "c"):
        cache.put(of_texts([text]), encoder.encode(of_texts([text])))
    unlink, done = Path.unlink, []

    def killed(path: Path, missing_ok: bool = False) -> None:
        if len(done) == (killed_at == "one removed"):
            raise KeyboardInterrupt
        done.append(path)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.compact()
    monkeypatch.undo()
    for _ in range(2):
        opened = EmbeddingCache(tmp_path, encoder.space)
        assert len(opened) == 3
        np.testing.assert_array_equal(opened.get(of_texts("abc")), encoder.encode(of_texts("abc")))
        opened.compact()
    assert len(list(opened.folder.glob("*.npy"))) <= 2


def test_two_drivers_in_one_folder(tmp_path: Path, encoder: HashedEncoder) -> None:
    """Both have opened it, both store the same and their own; one merges while the other reads and merges on."""
    one, two = (EmbeddingCache(tmp_path, encoder.space) for _ in range(2))
    for cache, texts in ((one, ["a", "b"]), (two, ["a", "b"]), (one, ["c"]), (two, ["b", "d"])):
        cache.put(of_texts(texts), encoder.encode(of_texts(texts)))
    one.compact()
    np.testing.assert_array_equal(two.get(of_texts("abd")), encoder.encode(of_texts("abd")))
    two.put(of_texts(["e"]), encoder.encode(of_texts(["e"])))
    two.compact()
    one.compact()
    np.testing.assert_array_equal(one.get(of_texts("abc")), encoder.encode(of_texts("abc")))
    opened = EmbeddingCache(tmp_path, encoder.space)
    assert len(opened) == 5
    np.testing.assert_array_equal(opened.get(of_texts("abcde")), encoder.encode(of_texts("abcde")))


def test_a_merge_goes_on_elsewhere(tmp_path: Path, encoder: HashedEncoder) -> None:
    """The lock is held: the shards stay small, and nothing waits."""
    import fcntl

    cache = EmbeddingCache(tmp_path, encoder.space)
    for text in ("a", "b"):
        cache.put(of_texts([text]), encoder.encode(of_texts([text])))
    with (cache.folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        cache.compact()
        assert len(list(cache.folder.glob("*.npy"))) == 2
    cache.compact()
    assert len(list(cache.folder.glob("*.npy"))) == 1


def test_the_index_is_exact_where_the_first_bytes_agree(tmp_path: Path) -> None:
    """sha256 never does that, so the keys are made by hand: three share their first eight bytes, one is the next number."""
    keys = np.zeros((4, 32), dtype=np.uint8)
    keys[:, 15] = [1, 2, 3, 0]
    keys[3, 7] = 1
    vectors = np.arange(8, dtype=np.float32).reshape(4, 2)
    index = KeyIndex()
    index.add_all([Shard.write(tmp_path, keys[[0]], vectors[[0]]), Shard.write(tmp_path, keys[[1, 3]], vectors[[1, 3]])])
    assert index.find(keys).tolist() == [0, 1, -1, 2]
    shard = Shard.write(tmp_path, keys[[0, 2]], vectors[[0, 2]])
    index.add(shard, shard.keys(), index.find(shard.keys()) < 0)
    rows = index.find(keys)
    assert len(index) == 4 and rows.min() >= 0
    np.testing.assert_array_equal(index.vectors(rows), vectors)
    assert index.find(keys[:0]).shape == (0,) and index.find(np.full((1, 32), 255, dtype=np.uint8)).tolist() == [-1]


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=12), st.integers(2, 5), st.integers(100, 2000))
def test_the_cache_is_a_dictionary(batches: list[list[int]], many: int, big: int) -> None:
    encoder = HashedEncoder(4)
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder), encoder.space, many=many, big=big)
        known: set[int] = set()
        for batch in batches:
            texts = of_texts(str(i) for i in batch)
            cache.put(texts, encoder.encode(texts))
            known |= set(batch)
            everything = of_texts(str(i) for i in range(31))
            assert cache.has(keys_of(everything)).tolist() == [i in known for i in range(31)]
            assert len(cache) == len(known)
        held = of_texts(str(i) for i in sorted(known))
        for opened in (cache, EmbeddingCache(Path(folder), encoder.space, big=big)):
            np.testing.assert_array_equal(opened.get(held), encoder.encode(held))
            assert len(opened) == len(known)


def test_lookup_is_fast(tmp_path: Path, encoder: HashedEncoder) -> None:
    cache = EmbeddingCache(tmp_path, encoder.space)
    texts = of_texts(f"text {i}" for i in range(20_000))
    cache.put(texts, np.random.default_rng(0).random((20_000, 8), dtype=np.float32))
    for look in (lambda: cache.get(texts), lambda: cache.has(keys_of(texts))):
        look()
        started = time.process_time()
        look()
        assert (time.process_time() - started) / len(texts) < 5e-6
