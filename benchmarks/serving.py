"""Milliseconds of requests over HTTP, under open-loop load from another process of the same machine.

The model has ml-1m's size (3,706 items, 6,040 users), 64 dimensions, two layers and reads 200 events; weights are random, for the time does
not depend on them. Poisson arrivals; a time runs from the moment when the request was due until its answer is whole. The load has the last core
to itself and `recsys serve` the others; its peers, which are several processes, may use all. "User, vector held" sends
user_ids whose history did not change since the last answer; "raw history" sends 200 item_ids, which are encoded anew each time.
Ray Serve and `mlflow models serve` answer from the same scorer class in the same run. Under swaps, each answer must be the one that its version gives.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._child import REPOSITORY, Child, own
from benchmarks._load import pin
from benchmarks._progress import say
from benchmarks._scorer import NAME, write_bundle
from recsys.tracking import CHAMPION, Tracker, default_tracking_uri

SIGNALS = {"minilm": 384, "smollm2": 576}
START_SECONDS = 300


@dataclass(frozen=True)
class Size:
    items: int = 3_706
    users: int = 6_040
    history: int = 200
    candidates: int = 500
    large_items: int = 1_000_000
    seconds: float = 300.0
    peer_seconds: float = 30.0
    rate: float = 200.0
    recommend_rate: float = 100.0
    large_rate: float = 20.0
    swaps: int = 20
    swap_seconds: float = 6.0


SMALL = Size(
    items=300, users=50, candidates=50, large_items=5_000, seconds=3, peer_seconds=2, rate=20, recommend_rate=10, large_rate=5, swaps=4, swap_seconds=2
)
BAD_VERSIONS = 3


def run(*, small: bool = False, threads: int = 2) -> dict[str, Any]:
    size = SMALL if small else Size()
    with tempfile.TemporaryDirectory(prefix="recsys-serving-") as temporary:
        folder = Path(temporary)
        bundle = str(write_bundle(folder / "bundle", size.items, size.users, size.history, SIGNALS).path)
        rows = [*_ours(size, folder, bundle), *_peers(size, folder, bundle)]
        large = _large(size, folder)
        swaps = _swaps(size, folder)
    notes = [" ".join((__doc__ or "").split("\n\n")[1].split())]
    return {"items": size.items, "users": size.users, "history": size.history, "candidates": size.candidates, "serving": rows, **large, **swaps, "notes": notes}


def _ours(size: Size, folder: Path, bundle: str) -> Iterator[dict[str, Any]]:
    with _server("ours", {"bundle": bundle}) as (port, pid):
        _drive(port, _scores(size, folder, cached=True), size.rate, 2)
        for what, requests, rate in _workloads(size, folder):
            yield _row("recsys serve", what, rate, _drive(port, requests, rate, size.seconds))
        say(f"memory {_memory(pid)} MB")
    with _server("ours", {"bundle": bundle, "workers": 1}) as (port, _):
        for what, requests, rate in _workloads(size, folder):
            _drive(port, requests, rate, 2)
            yield _row("recsys serve, workers: 1", what, rate, _drive(port, requests, rate, size.peer_seconds))


def _peers(size: Size, folder: Path, bundle: str) -> Iterator[dict[str, Any]]:
    for name, kind, settings in (
        ("Ray Serve", "ray_serve", {"bundle": bundle}),
        ("mlflow models serve", "mlflow", {"bundle": bundle, "folder": str(folder / "mlflow")}),
    ):
        try:
            with _server(kind, settings, ready=_answers_score if kind == "ray_serve" else _answers_ping) as (port, _):
                for what, requests, rate in _workloads(size, folder):
                    if kind == "mlflow":
                        requests = _as_invocations(requests)
                    _drive(port, requests, rate / 10, 2)
                    yield _row(name, what, rate, _drive(port, requests, rate, size.peer_seconds))
        except RuntimeError as error:
            yield {"who": f"{name}: {error}"}


def _large(size: Size, folder: Path) -> dict[str, Any]:
    settings = {"large": {"n_items": size.large_items, "n_users": 1_000, "history": 50}}
    large = Size(items=size.large_items, users=1_000, history=50, candidates=size.candidates)
    rows = []
    with _server("ours", settings) as (port, pid):
        before = _memory(pid)
        for what, requests, rate in (
            ("500 candidates, user, vector held", _scores(large, folder, cached=True), size.rate),
            ("recommend, whole catalogue", _recommends(large, folder), size.large_rate),
        ):
            rows.append(_row("recsys serve", what, rate, _drive(port, requests, rate, size.peer_seconds)))
        return {"large_snapshot_items": size.large_items, "large_snapshot_dim": 64, "large_snapshot_memory_mb": before, "large_snapshot": rows}


def _swaps(size: Size, folder: Path) -> dict[str, Any]:
    """Three good versions in turn, so that none that comes is the one still held; bad ones in between; one rollback at the end; while requests come."""
    uri = default_tracking_uri(folder / "registry")
    tracker = Tracker(uri, "bench")
    good = [_register(tracker, folder, size, seed) for seed in (1, 2, 3)]
    tracker.set_alias(NAME, CHAMPION, good[0])
    poll = 1.0
    moves: list[tuple[float, str]] = []
    with _server("ours", {"registry": uri, "poll_seconds": poll}) as (port, _):
        seconds = (size.swaps + BAD_VERSIONS + 1) * size.swap_seconds + 5

        def change() -> None:
            bad = [_damaged(tracker, folder, size, 10 + number) for number in range(BAD_VERSIONS)]
            time.sleep(2)
            for number in range(size.swaps + 1):
                version = good[(number + 1) % 3] if number < size.swaps else good[(number - 1) % 3]  # the last is the one before: a rollback
                moves.append((time.time(), version))
                tracker.set_alias(NAME, CHAMPION, version)
                time.sleep(size.swap_seconds)
                if bad and number % max(1, size.swaps // BAD_VERSIONS) == 0:
                    tracker.set_alias(NAME, CHAMPION, bad.pop())
                    time.sleep(size.swap_seconds)
                    tracker.set_alias(NAME, CHAMPION, version)

        changer = threading.Thread(target=change)
        changer.start()
        figures = _drive(port, _scores(size, folder, cached=False), size.rate, seconds)
        changer.join()
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    counted = {line.split('"')[1]: int(float(line.split()[-1])) for line in metrics.splitlines() if line.startswith("recsys_swaps_total{")}
    delays = [min((at - moved for at, seen in figures["changes"] if at >= moved and seen == version), default=float("nan")) for moved, version in moves]
    row = _row("recsys serve", f"{size.swaps} swaps, {BAD_VERSIONS} bad versions, a rollback", size.rate, figures)
    return {
        "swaps": [
            {
                **row,
                "mixed_answers": figures["mixed"],
                "poll_s": poll,
                "alias_to_answer_max_s": round(max(delays), 2),
                **{f"swaps_{k}": n for k, n in counted.items()},
            }
        ]
    }


def _register(tracker: Tracker, folder: Path, size: Size, seed: int) -> str:
    bundle = write_bundle(folder / f"version-{seed}", size.items, size.users, size.history, SIGNALS, seed)
    with tracker.run("bench") as opened:
        return tracker.register(NAME, bundle.path, run_id=opened.run_id)


def _damaged(tracker: Tracker, folder: Path, size: Size, seed: int) -> str:
    version = _register(tracker, folder, size, seed)
    weights = tracker.resolve(f"models:/{NAME}/{version}").path / "ranker" / "ranker.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    return version


def _workloads(size: Size, folder: Path) -> list[tuple[str, Path, float]]:
    return [
        (f"{size.candidates} candidates, user, vector held", _scores(size, folder, cached=True), size.rate),
        (f"{size.candidates} candidates, raw history", _scores(size, folder, cached=False), size.rate),
        ("recommend, whole catalogue", _recommends(size, folder), size.recommend_rate),
    ]


def _scores(size: Size, folder: Path, *, cached: bool) -> Path:
    chosen = random.Random(0)
    items = [str(n) for n in range(size.items)]
    requests = []
    for number in range(200):
        whom: dict[str, Any] = {"user_id": f"u{number % size.users}"} if cached else {"history": chosen.choices(items, k=size.history)}
        requests.append(("/v1/score", {**whom, "candidates": chosen.sample(items, size.candidates)}))
    return _written(folder / f"scores-{size.items}-{cached}.json", requests)


def _recommends(size: Size, folder: Path) -> Path:
    return _written(folder / f"recommends-{size.items}.json", [("/v1/recommend", {"user_id": f"u{n % size.users}", "k": 10}) for n in range(200)])


def _as_invocations(requests: Path) -> Path:
    rows = [("/invocations", {"dataframe_records": [body]}) for _, body in json.loads(requests.read_text(encoding="utf-8"))]
    return _written(requests.with_name(f"mlflow-{requests.name}"), rows)


def _written(path: Path, requests: list[tuple[str, dict[str, Any]]]) -> Path:
    path.write_text(json.dumps(requests), encoding="utf-8")
    return path


def _drive(port: int, requests: Path, rate: float, seconds: float) -> dict[str, Any]:
    settings = {"port": port, "requests": str(requests), "rate": rate, "seconds": seconds}
    with Child(own("benchmarks._load:drive", settings), cap=seconds + 180, threads=1) as child:
        return next(iter(child))


def _row(who: str, what: str, rate: float, figures: dict[str, Any]) -> dict[str, Any]:
    row = {
        "who": who,
        "what": what,
        "requests_per_second": rate,
        **{k: figures[k] for k in ("answers", "failed", "p50_ms", "p95_ms", "p99_ms", "max_ms", "client_late_p99_ms")},
    }
    say(f"{row} {figures['failures'] or ''}")
    return row


def _answers_ready(port: int) -> bool:
    return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200)


def _answers_ping(port: int) -> bool:
    return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).status == 200)


def _answers_score(port: int) -> bool:
    body = json.dumps({"history": [], "candidates": ["0"]}).encode()
    return bool(urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/v1/score", data=body), timeout=5).status == 200)


@contextmanager
def _server(kind: str, settings: dict[str, Any], *, ready: Callable[[int], bool] = _answers_ready) -> Iterator[tuple[int, int]]:
    """(port, pid) of a server that answers. Raises RuntimeError: it ended, or did not answer in time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    say(f"starting {kind}")
    with tempfile.TemporaryFile("w+") as errors:
        command = [sys.executable, "-m", "benchmarks._scorer", kind, json.dumps({"port": port, **settings})]
        process = subprocess.Popen(command, stdout=errors, stderr=errors, cwd=REPOSITORY, start_new_session=True)
        if kind == "ours":
            pin(process.pid, server=True)
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                if process.poll() is not None or time.monotonic() > deadline:
                    errors.seek(0)
                    raise RuntimeError(f"did not start: {errors.read().strip()[-500:]}")
                try:
                    if ready(port):
                        break
                except OSError:
                    time.sleep(0.2)
            yield port, process.pid
        finally:
            # Its own group: a server may have started processes of its own.
            for kind_of_end in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, kind_of_end)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=30)


def _memory(pid: int) -> int:
    """MB in use."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024
