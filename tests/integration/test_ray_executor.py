from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.executors import LocalExecutor, RayExecutor, make_executor
from recsys.embeddings.cache import EmbeddingCache
from recsys.embeddings.encoder import Encoder
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.text import TextEncoderConfig
from recsys.errors import ConfigError, SpaceMismatchError

CONFIG = TextEncoderConfig(name="hashed", model="hashed")
TEXTS = [f"movie number {i} " + "x " * (i % 7) for i in range(40)]


def nothing(done: int, total: int) -> None: ...


class Killed(BaseException):
    pass


def test_killed_run_resumes_and_encodes_no_text_twice(tmp_path: Path) -> None:
    encoder = HashedEncoder(template=CONFIG.template)

    def load(config: TextEncoderConfig) -> Encoder:
        return encoder

    def kill(done: int, total: int) -> None:
        if done >= 20:
            raise Killed

    with pytest.raises(Killed):
        LocalExecutor(load=load, batch=10).embed(CONFIG, TEXTS, EmbeddingCache(tmp_path, CONFIG.space()), kill)
    assert encoder.calls == 20
    seen: list[tuple[int, int]] = []
    cache = EmbeddingCache(tmp_path, CONFIG.space())
    LocalExecutor(load=load, batch=10).embed(CONFIG, TEXTS, cache, lambda done, total: seen.append((done, total)))
    assert encoder.calls == len(TEXTS) and seen == [(10, 20), (20, 20)]
    np.testing.assert_array_equal(cache.get(TEXTS), HashedEncoder().encode(TEXTS))


def test_foreign_space_and_unknown_executor(tmp_path: Path) -> None:
    with pytest.raises(SpaceMismatchError):
        LocalExecutor().embed(CONFIG, TEXTS, EmbeddingCache(tmp_path, HashedEncoder(8).space), nothing)
    with pytest.raises(ConfigError), make_executor("slurm"):
        pass


@pytest.fixture
def two_nodes() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False})
    cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    try:
        yield cluster.address
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_two_nodes_give_the_local_table(tmp_path: Path, two_nodes: str) -> None:
    """The driver alone writes; the nodes share no working folder with it."""
    executor = RayExecutor(two_nodes, workers=2, batch=4, spread=True, no_progress_seconds=60)
    cache = EmbeddingCache(tmp_path, CONFIG.space())
    seen: list[int] = []
    executor.embed(CONFIG, TEXTS, cache, lambda done, total: seen.append(done))
    np.testing.assert_array_equal(cache.get(TEXTS), HashedEncoder().encode(TEXTS))
    assert len(executor.nodes) == 2 and seen[-1] == len(TEXTS) and len(seen) > 1
    executor.close()


@pytest.mark.slow
def test_local_ray_refuses_a_foreign_space_and_equals_local(tmp_path: Path) -> None:
    with make_executor("ray") as executor:
        with pytest.raises(SpaceMismatchError):
            executor.embed(CONFIG, TEXTS, EmbeddingCache(tmp_path / "foreign", HashedEncoder(8).space), nothing)
        cache = EmbeddingCache(tmp_path, CONFIG.space())
        executor.embed(CONFIG, TEXTS, cache, nothing)
    np.testing.assert_array_equal(cache.get(TEXTS), HashedEncoder().encode(TEXTS))
