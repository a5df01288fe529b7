"""The service as a process: ended kindly, killed, started again."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import making
from tests.serving.sources import FolderSource

pytestmark = pytest.mark.slow
BODY = {"user_id": "u1", "candidates": ["i1", "i2", "new"]}
NEW = {"item_id": "new", "title": "title 3 of the film"}
START_SECONDS = 120


class Running:
    def __init__(self, folder: Path, **options: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "tests.serving.server_process", str(folder), str(self.port), json.dumps(options)]
        self.log = (folder / "log.txt").open("a+")
        self.process = subprocess.Popen(command, stderr=self.log, cwd=Path(__file__).parents[2])
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)
        wait_for(lambda: self.get("/readyz") == 200 or self.process.poll() is not None, START_SECONDS)
        assert self.process.poll() is None, self.lines()

    def get(self, path: str) -> int | None:
        try:
            return self.client.get(path).status_code
        except httpx.HTTPError:
            return None

    def lines(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.client.close()
        self.log.close()


def wait_for(ready: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []
    FolderSource(tmp_path / "registry").release("1")

    def begin(**options: Any) -> Running:
        running.append(Running(tmp_path, **options))
        return running[-1]

    yield begin
    for one in running:
        one.end()


def test_killed_in_the_middle_of_taking_items_and_started_again(start: Callable[..., Running], tmp_path: Path) -> None:
    first = start()
    assert first.client.post("/v1/items", json={"items": [NEW]}).status_code == 200
    answer = first.client.post("/v1/score", json=BODY).json()["scores"]
    acknowledged: list[str] = []

    def send() -> None:
        for number in range(10_000):
            try:
                if first.client.post("/v1/items", json={"items": [{"item_id": f"n{number}", "title": f"film {number}"}]}).status_code == 200:
                    acknowledged.append(f"n{number}")
            except httpx.HTTPError:
                return

    sender = threading.Thread(target=send)
    sender.start()
    wait_for(lambda: len(acknowledged) >= 3, 60)
    first.process.kill()
    sender.join()
    again = start()
    after = again.client.post("/v1/score", json=BODY).json()["scores"]
    assert [s["score"] for s in after] == pytest.approx([s["score"] for s in answer], abs=1e-5)
    found = again.client.post("/v1/score", json={"user_id": "u1", "candidates": acknowledged}).json()["scores"]
    assert [s["reason"] for s in found] == [None] * len(acknowledged)  # what was acknowledged is there
    assert not list((tmp_path / "new_items").glob("damaged/*"))


def test_told_to_end_it_answers_what_it_took_in(start: Callable[..., Running]) -> None:
    running = start(slow=0.4, drain_seconds=1.0, workers=2)
    answers: list[int] = []
    clients = [httpx.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=60, trust_env=False) for _ in range(4)]
    threads = [threading.Thread(target=lambda c=c: answers.append(c.post("/v1/score", json=BODY).status_code)) for c in clients]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    running.process.send_signal(signal.SIGTERM)
    wait_for(lambda: running.get("/readyz") == 503, 10)  # a balancer sends no more
    assert running.client.post("/v1/score", json=BODY).status_code == 200  # what comes all the same is answered
    for thread in threads:
        thread.join()
    assert answers == [200] * 4
    running.process.wait(timeout=30)
    assert running.get("/healthz") is None
    for client in clients:
        client.close()
    lines = [json.loads(line) for line in running.lines().splitlines()]
    assert {line["status"] for line in lines if line["message"] == "request" and line["route"] == "/v1/score"} == {200}


def test_it_follows_the_alias_and_starts_without_the_registry(start: Callable[..., Running], tmp_path: Path) -> None:
    running = start()
    source = FolderSource(tmp_path / "registry")

    def version() -> str:
        return str(running.client.post("/v1/score", json=BODY).json()["model"]["version"])

    assert version() == "1"
    making.bundle(source.root / "2", seed=2)
    source.point_to("2")
    wait_for(lambda: version() == "2", 30)
    wait_for(lambda: (tmp_path / "kept" / "last.json").exists() and '"2"' in (tmp_path / "kept" / "last.json").read_text(), 30)
    running.process.kill()
    running.process.wait()
    shutil.rmtree(source.root)
    running = start()
    assert version() == "2"
    assert "which served here last" in running.lines()
