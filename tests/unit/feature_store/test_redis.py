"""The same online features from a real Redis server on a free port."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_store.online import FeastOnlineFeatures
from feature_store.online_store import RedisStore
from feature_store.publish import activate, prepare
from feature_store.tables import FeatureTables
from feature_store.verify import verify
from recsys.errors import RetryableError
from recsys.serving.features import Event
from tests.unit.feature_store.test_events import at, items, users, vectors

SERVER = shutil.which("redis-server")
pytestmark = pytest.mark.skipif(SERVER is None, reason="redis-server is not installed (Debian: apt-get install redis-server)")


class Server:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", "--appendonly", "yes"]
        self.process = subprocess.Popen([SERVER or "", *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


def publish(root: Path, server: Server, rows: dict[str, tuple[list[str], float]], space: str = "s") -> str:
    tables = FeatureTables(users(**rows), items(), item_vectors=vectors(space))
    version = prepare(root, tables, RedisStore(connection_string=f"127.0.0.1:{server.port}")).version
    activate(root, version)
    return version


def test_states_events_and_versions(server: Server, tmp_path: Path) -> None:
    import redis

    publish(tmp_path, server, {"u": (["a"], 0), "v": (["q"], 0)})
    features = FeastOnlineFeatures(tmp_path)
    assert [features.history(user) for user in ("u", "v", "nobody")] == [["a"], ["q"], None]
    for item in ("b", "c", "d"):  # of one second: Redis keeps what is newer, so each must be
        features.push([Event("u", item, at(1))])
    features.push([Event("new", "z", at(-9000))])
    assert [features.history(user) for user in ("u", "new")] == [["a", "b", "c", "d"], ["z"]]
    assert [check.problem for check in verify(tmp_path, "s") if check.problem] == []

    publish(tmp_path, server, {"u": (["a", "b"], 0.5)}, space="s2")
    assert [features.history(user) for user in ("u", "v", "new")] == [["a", "b", "b", "c", "d"], None, ["z"]]
    client = redis.Redis(port=server.port)
    projects = {key.decode("utf-8", "replace").rpartition("recsys_")[2] for key in client.scan_iter()}
    assert len(projects) == 2
    publish(tmp_path, server, {"u": (["a", "b", "c", "d"], 2)})
    assert len({key.decode("utf-8", "replace").rpartition("recsys_")[2] for key in client.scan_iter()}) == 2
    assert features.history("u") == ["a", "b", "c", "d"]
    assert not list(tmp_path.rglob("online_store.db"))


def test_a_server_that_dies_is_told_and_found_again(server: Server, tmp_path: Path) -> None:
    publish(tmp_path, server, {"u": (["a"], 0)})
    features = FeastOnlineFeatures(tmp_path)
    features.push([Event("u", "b", at(1))])
    server.stop()
    with pytest.raises(RetryableError, match="cannot be read or written"):
        features.history("u")
    with pytest.raises(RetryableError, match="cannot be read or written"):
        features.push([Event("u", "lost", at(2))])
    server.start()
    assert features.history("u") == ["a", "b"]
    features.push([Event("u", "c", at(2))])
    assert features.history("u") == ["a", "b", "c"]
