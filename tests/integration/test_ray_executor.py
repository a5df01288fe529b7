import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.executors import LocalExecutor, RayExecutor, _translated, make_executor
from recsys.embeddings.cache import EmbeddingCache
from recsys.embeddings.content import of_texts
from recsys.embeddings.encoder import Encoder
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.text import TextEncoderConfig
from recsys.errors import ConfigError, RecsysError, RetryableError, SpaceMismatchError

CONFIG = TextEncoderConfig(name="hashed", model="hashed")
TEXTS = of_texts(f"movie number {i} " + "x " * (i % 7) for i in range(40))


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
def two_nodes(tmp_path: Path) -> Iterator[str]:
    from ray._common.utils import get_default_ray_temp_dir
    from ray.cluster_utils import Cluster

    # A head with a folder of its own still notes its address in the default one, and does not make it.
    Path(get_default_ray_temp_dir()).mkdir(parents=True, exist_ok=True)
    # Short names: Ray's sockets live there, and their paths may have 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="r1") as first, tempfile.TemporaryDirectory(prefix="r2") as second:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        head = {"num_cpus": 3, "object_store_memory": 80 * 2**20, "include_dashboard": False, "temp_dir": first}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "3", "--object-store-memory", str(80 * 2**20)]
        with (elsewhere / "log").open("wb") as log:
            node = subprocess.Popen([*command, "--address", cluster.address, "--temp-dir", second], cwd=elsewhere, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield cluster.address
            assert any(Path(second).iterdir()), "Ray ignored the second node's temporary folder"
        finally:
            import ray

            ray.shutdown()
            node.terminate()
            node.wait(timeout=30)
            cluster.shutdown()


@pytest.mark.slow
def test_two_nodes_give_the_local_table(tmp_path: Path, two_nodes: str) -> None:
    """Two Ray nodes on one machine. Not shared: Ray's temporary folder, the working folder, the object store.

    Shared: the machine's file system with the installed code and weights. The cache's folder is given to the driver only.
    """
    executor = RayExecutor(two_nodes, workers=2, batch=4, cpus_per_worker=2, at_once=True, no_progress_seconds=150)
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


@pytest.mark.parametrize("kind", [SpaceMismatchError, ConfigError])
def test_an_actors_own_error_keeps_its_type(kind: type[RecsysError]) -> None:
    """Ray hands over an error of a method as a cause, one of a constructor as the text of a remote traceback."""
    wrapper = RuntimeError("task failed")
    wrapper.__cause__ = kind("wrong")
    died = RuntimeError(f'The actor died in its creation task\n  File "x.py", line 1, in __init__\nrecsys.errors.{kind.__name__}: wrong')
    for error in (wrapper, died):
        found = _translated(error)
        assert type(found) is kind and str(found) == "wrong"
    assert type(_translated(RuntimeError("node lost"))) is RetryableError
