"""A registry behind HTTP: the MLflow server of infra/compose.yaml, with its own command, holds a version and gives it back whole."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

import recsys
from recsys.artifacts.artifact import Artifact
from recsys.tracking import CHAMPION, Tracker
from tests.serving import making

COMPOSE = Path(__file__).parents[2] / "infra" / "compose.yaml"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Its URL. Address, port and folder are the test's own; all else is what compose says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    written = yaml.safe_load(COMPOSE.read_text())["services"]["mlflow"]["command"]
    command = [part.replace("0.0.0.0", "127.0.0.1").replace("5000", str(port)).replace("/app/.recsys", str(tmp_path / "server")) for part in written]
    (tmp_path / "server").mkdir()
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "server.log").open("wb") as log:
        # A group of its own: the server is a parent of its workers.
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(url, process, tmp_path / "server.log")
            yield url
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", trust_env=False).text == "OK":
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


@pytest.mark.slow
def test_a_version_is_registered_promoted_and_fetched(server: str, tmp_path: Path) -> None:
    bundle = making.bundle(tmp_path / "bundle")
    tracker = Tracker(server)
    with tracker.run("release") as run:
        run.log_metrics({"ndcg@10": 0.1})
        version = tracker.register("small", bundle.path, run_id=run.run_id, tags={"gate": "promote"})
    tracker.promote("small", version)
    champion = tracker.champion("small")
    assert champion is not None and (champion.version, champion.run_metrics, champion.tags["gate"]) == ("1", {"ndcg_at_10": 0.1}, "promote")
    fetched = tracker.resolve(f"models:/small@{CHAMPION}")
    assert fetched.path != bundle.path and Artifact.open(fetched.path, kind="bundle").manifest.files == bundle.manifest.files
    here, there = recsys.load(bundle.path), recsys.load(f"models:/small@{CHAMPION}", tracking_uri=server)
    assert there.score("u1", ["i1", "i2"]).equals(here.score("u1", ["i1", "i2"]))
    # Under another name it answers nothing: a web page's own name for this address, say.
    listed = "/api/2.0/mlflow/registered-models/search"
    assert httpx.get(f"{server}{listed}", trust_env=False).status_code == 200
    assert httpx.get(f"{server}{listed}", headers={"Host": "elsewhere.example"}, trust_env=False).status_code == 403
