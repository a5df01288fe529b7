import time
from pathlib import Path

import numpy as np
import pytest

from recsys.embeddings.cache import EmbeddingCache
from recsys.embeddings.content import of_texts
from recsys.embeddings.hashed import HashedEncoder
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


def test_lookup_is_fast(tmp_path: Path, encoder: HashedEncoder) -> None:
    cache = EmbeddingCache(tmp_path, encoder.space)
    texts = of_texts(f"text {i}" for i in range(20_000))
    cache.put(texts, np.random.default_rng(0).random((20_000, 8), dtype=np.float32))
    cache.get(texts[:1])
    started = time.process_time()
    cache.get(texts)
    assert (time.process_time() - started) / len(texts) < 5e-6
