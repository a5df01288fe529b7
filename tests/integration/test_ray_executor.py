"""The executors: what they compute, refuse and survive. Ray's are slow to start, so that one pool serves several tests."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.executors import EncodedBatch, LocalExecutor, RayExecutor, make_executor
from pipelines.executors.base import encode_batch
from pipelines.executors.ray_pool import _Pool, _translated, _Worker
from pipelines.executors.watchdog import watched
from recsys.embeddings.content import Content, keys_of, of_texts
from recsys.embeddings.encoder import Encoder
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.text import TextEncoderConfig
from recsys.errors import ConfigError, DataError, RecsysError, RetryableError, SpaceMismatchError
from recsys.testing.encoders import LoadStandIn, StandIn, StandInConfig
from recsys.types import FloatArray

CONFIG = TextEncoderConfig(name="hashed", model="hashed")
JOINT = StandInConfig(name="joint", model="hashed")
SPACE = CONFIG.space().space_id
TEXTS = of_texts(f"movie number {i} " + "x " * (i % 7) for i in range(40))


def batches(size: int = 10) -> Iterator[list[Content]]:
    return (TEXTS[start : start + size] for start in range(0, len(TEXTS), size))


def table_of(found: list[EncodedBatch]) -> dict[bytes, FloatArray]:
    return {key.tobytes(): vector for batch in found for key, vector in zip(batch.keys, batch.vectors, strict=True)}


def require_hashed(found: list[EncodedBatch]) -> None:
    table = table_of(found)
    assert len(table) == len(TEXTS)
    np.testing.assert_array_equal([table[key.tobytes()] for key in keys_of(TEXTS)], HashedEncoder().encode(TEXTS))


def test_local_loads_with_the_first_batch_and_computes_none_ahead() -> None:
    loaded: list[HashedEncoder] = []

    def load(config: object) -> Encoder:
        loaded.append(HashedEncoder(template=CONFIG.template))
        return loaded[-1]

    executor = LocalExecutor(load=load)
    assert list(executor.encode(CONFIG, SPACE, iter([]))) == [] and not loaded
    encoded = executor.encode(CONFIG, SPACE, batches())
    first = [next(encoded), next(encoded)]
    assert loaded[0].calls == 20 and len(loaded) == 1
    require_hashed([*first, *encoded])


def test_foreign_space_and_unknown_executor() -> None:
    with pytest.raises(SpaceMismatchError):
        list(LocalExecutor().encode(CONFIG, HashedEncoder(8).space.space_id, batches()))
    with pytest.raises(ConfigError), make_executor("slurm"):
        pass


def test_a_stalled_encoder_is_stopped_with_a_reason() -> None:
    started = time.monotonic()
    with pytest.raises(RetryableError, match=r"no batch was finished for 0 s \(in the encoder 'hashed' of this process\)"):
        list(LocalExecutor(load=LoadStandIn(loading=60), no_progress_seconds=0.2).encode(CONFIG, SPACE, batches()))
    assert time.monotonic() - started < 10


def test_the_watchdog_passes_on_items_errors_and_the_end() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield 1
            yield 2
            raise DataError("wrong")
        finally:
            closed.append(True)

    seen = []
    with pytest.raises(DataError, match="wrong"):
        for item in watched(items(), 10):
            seen.append(item)
    assert seen == [1, 2] and list(watched(iter("ab"), 10)) == ["a", "b"] and len(closed) == 1
    some = watched(items(), 10)
    next(some)
    some.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while len(closed) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(closed) == 2

    def never() -> str:
        time.sleep(60)
        return ""

    def broken() -> str:
        raise ConnectionError("gone")

    for why, reason in ((never, "does not answer"), (broken, "ConnectionError: gone")):
        with pytest.raises(RetryableError, match=reason):
            next(watched(iter(lambda: time.sleep(60), 0), 0.1, why))


POISON = [Content("fine"), Content("this is not finite"), Content("a text", b"no picture"), Content("also fine")]


def test_what_an_encoder_refuses_does_not_lose_its_batch() -> None:
    found = encode_batch(StandIn(CONFIG.template, 0, None), POISON, "here")
    assert found.keys.tobytes() == POISON[0].key + POISON[3].key and found.tokens == 3
    assert {key: reason.partition(":")[0] for key, reason in found.refused.items()} == {
        POISON[1].key: "vector not finite",
        POISON[2].key: "picture not decoded",
    }


@pytest.fixture(scope="module")
def pool() -> Iterator[RayExecutor]:
    with make_executor("ray") as executor:
        assert isinstance(executor, RayExecutor)
        yield executor


@pytest.mark.slow
@pytest.mark.timeout(900)  # a busy machine starts an actor in half a minute, an idle one in four seconds
def test_local_ray_equals_local(pool: RayExecutor) -> None:
    assert list(pool.encode(CONFIG, SPACE, iter([]))) == []
    with pytest.raises(SpaceMismatchError):
        list(pool.encode(CONFIG, HashedEncoder(8).space.space_id, batches()))
    require_hashed(list(pool.encode(CONFIG, SPACE, batches(7))))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_refuses_the_same_and_an_encoders_error_keeps_its_type(pool: RayExecutor, tmp_path: Path) -> None:
    pool.connect()
    found = list(RayExecutor(load=LoadStandIn()).encode(JOINT, SPACE, iter([POISON[:2], POISON[2:]])))
    local = list(LocalExecutor(load=LoadStandIn()).encode(JOINT, SPACE, iter([POISON[:2], POISON[2:]])))
    assert [batch.refused for batch in found] == [batch.refused for batch in local]
    assert table_of(found).keys() == table_of(local).keys() and sum(batch.tokens for batch in found) == 3
    with pytest.raises(ConfigError, match="no such weights"):
        list(RayExecutor(load=LoadStandIn(error="no such weights")).encode(CONFIG, SPACE, batches()))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_content_that_kills_its_process_is_refused(pool: RayExecutor) -> None:
    pool.connect()
    killer = Content("kill the process")
    executor = RayExecutor(load=LoadStandIn())
    found = list(executor.encode(CONFIG, SPACE, iter([[killer], TEXTS[:3]])))
    ((key, reason),) = [pair for batch in found for pair in batch.refused.items()]
    assert key == killer.key and "its process died 3 times over this content alone" in reason
    assert table_of(found).keys() == {content.key for content in TEXTS[:3]} and executor.deaths == 3


def test_a_batch_that_loses_its_actors_is_halved_down_to_the_one_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray: an actor takes the oldest task; it dies where the killer is in it, and the task that waits is not blamed."""
    executor = RayExecutor()
    monkeypatch.setattr(executor, "_start_worker", lambda config, space_id: _Worker(object(), None))
    pool = _Pool(executor, CONFIG, SPACE, iter([TEXTS[:20], TEXTS[20:]]))
    pool._workers = [executor._start_worker(CONFIG, SPACE)]
    killer, refused, done = TEXTS[5], {}, []
    while True:
        worker = pool._workers[0]
        while len(worker.tasks) < 2 and (task := pool._next()) is not None:
            worker.tasks.append((object(), task))
        if not worker.tasks:
            break
        task = worker.tasks[0][1]
        if killer in task.contents:
            answer = pool._replace(worker, RuntimeError("gone"))
            refused |= dict(answer.refused) if answer else {}
        else:
            done += task.contents
            worker.tasks.popleft()
            pool._deaths_in_a_row = 0
    assert sorted(c.text for c in done) == sorted(c.text for c in TEXTS if c != killer)
    assert list(refused) == [killer.key] and executor.deaths == 3 + 4 + 2  # 20; 10, 5, 2 (or 3), 1 at the second death of its batch; alone

    pool._deaths_in_a_row = 10
    with pytest.raises(RetryableError, match="11 actors died without finishing a batch.*the reason"):
        pool._replace(pool._workers[0], RuntimeError("the reason"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_actor_without_a_place_is_a_stall_with_a_reason(pool: RayExecutor) -> None:
    pool.connect()
    executor = RayExecutor(gpus_per_worker=0.5, no_progress_seconds=3)
    with pytest.raises(RetryableError, match=r"stalled: .*0 of 0 GPUs; an actor wants 1 CPUs and 0.5 GPUs"):
        list(executor.encode(CONFIG, SPACE, batches()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# As every process of a cluster: else each decides by whether there is a token in the home folder.
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two `ray start --block` of their own, as an operator starts them. Not shared: Ray's temporary folder, the working folder, the object store.

    Shared: the machine's file system with the installed code and weights. This process never joins: drivers are processes of their own.
    """
    address = f"127.0.0.1:{free_port()}"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "3", "--object-store-memory", str(80 * 2**20)]
    nodes: list[subprocess.Popen[bytes]] = []
    # Short names: Ray's sockets live there, and their paths may have 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="r1") as first, tempfile.TemporaryDirectory(prefix="r2") as second, (elsewhere / "log").open("wb") as log:

        def launch(*options: str) -> None:
            nodes.append(subprocess.Popen([*start, *options], cwd=elsewhere, stdout=log, stderr=subprocess.STDOUT, env=os.environ | ENVIRONMENT))

        try:
            launch("--head", "--port", address.partition(":")[2], "--include-dashboard", "false", "--temp-dir", first)
            deadline = time.monotonic() + 120
            while not _listens(address) and time.monotonic() < deadline:
                assert nodes[0].poll() is None, (elsewhere / "log").read_text()
                time.sleep(0.2)
            launch("--address", address, "--temp-dir", second)
            yield address
        finally:
            for node in reversed(nodes):
                node.terminate()
            for node in nodes:
                try:
                    node.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    node.kill()
                    node.wait()


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


BOTH_NODES = """
import json, sys
from itertools import count
from pipelines.executors import RayExecutor
from recsys.embeddings.content import of_texts
from recsys.embeddings.text import TextEncoderConfig
from recsys.testing.encoders import LoadStandIn

executor = RayExecutor(sys.argv[1], workers=2, cpus_per_worker=2, no_progress_seconds=400, load=LoadStandIn(seconds=0.01))

def until_both_have_worked():
    for number in count():
        if len(executor.nodes) == 2 or number > 20_000:
            return
        yield of_texts([f"text {number}"])

config = TextEncoderConfig(name="hashed", model="hashed")
done = sum(len(batch) for batch in executor.encode(config, config.space().space_id, until_both_have_worked()))
executor.close()
print(json.dumps([len(executor.nodes), done > 1]))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_actors_of_both_nodes_take_part(two_nodes: str) -> None:
    """Each has room for one actor: the job goes on until both have given an answer."""
    done = subprocess.run([sys.executable, "-c", BOTH_NODES, two_nodes], capture_output=True, text=True, timeout=800, env=os.environ | ENVIRONMENT)
    assert done.returncode == 0 and json.loads(done.stdout) == [2, True], done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_gives_one_table_whoever_embeds(two_nodes: str, tmp_path: Path) -> None:
    """`recsys embed` in this process, on a Ray of its own, and against the address of the two nodes; with items that are refused."""
    (tmp_path / "events.csv").write_text("user,item,ts\n" + "".join(f"u{i % 9},i{i},{i}\n" for i in range(300)))
    (tmp_path / "items.csv").write_text("id,name\n" + "".join(f"i{i},{'' if i == 7 else 'x' * 1_000_001 if i == 8 else f'film {i}'}\n" for i in range(300)))
    events = "{path: events.csv, columns: {user_id: user, item_id: item, time: ts}}"
    source = f"{{kind: table, interactions: {events}, items: {{path: items.csv, columns: {{item_id: id, title: name}}}}}}"
    (tmp_path / "shop.yaml").write_text(f"name: shop\ndata: {{source: {source}}}\nembed: [{{name: words, model: hashed, template: '{{title}}'}}]\n")
    found = []
    for number, options in enumerate([["--executor", "local"], ["--executor", "ray"], ["--ray-address", two_nodes, "--workers", "2"]]):
        command = [sys.executable, "-m", "pipelines.cli", "embed", "shop.yaml", "--set", f"runtime.root=root{number}", "--json", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=os.environ | ENVIRONMENT)
        assert done.returncode == 0, done.stdout + done.stderr
        facts = json.loads(done.stdout)["tables"]["embed:words"]
        folder = Path(facts["folder"])
        found.append(((folder / "values.npy").read_bytes(), (folder / "ids.json").read_bytes(), (folder / "quarantine.csv").read_bytes()))
        assert (facts["computed"], facts["quarantine"], facts["executor"]) == (298, {"empty": 1, "text too long": 1}, "ray" if number else "local")
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("kind", [SpaceMismatchError, ConfigError])
def test_an_actors_own_error_keeps_its_type(kind: type[RecsysError]) -> None:
    wrapper = RuntimeError("task failed")
    wrapper.__cause__ = kind("wrong")
    found = _translated(wrapper)
    assert type(found) is kind and str(found) == "wrong"
    assert type(_translated(RuntimeError("node lost"))) is RetryableError
