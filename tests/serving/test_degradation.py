"""fused -> the user's last vector -> popularity: each named in the answer."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from recsys.errors import NonFiniteError
from recsys.serving.app import create_app
from recsys.serving.bundle import load_bundle
from recsys.serving.config import ServiceConfig
from recsys.serving.people import Asked, People
from recsys.serving.recommender import Recommender
from recsys.serving.stopwatch import Stopwatch
from tests.serving import making
from tests.serving.test_app import Features


@pytest.fixture
def model(tmp_path: Path) -> Recommender:
    return making.recommender(tmp_path)


def test_a_store_that_dies_and_comes_back(model: Recommender) -> None:
    features = Features({"u1": ["i1", "i2"], "u2": ["i3"]})
    client = TestClient(create_app(model, features))
    body = {"user_id": "u1", "candidates": ["i5", "i6", making.UNSCORABLE]}
    fused = client.post("/v1/score", json=body).json()
    assert fused["step"] == "fused" and "degraded" not in fused
    best = client.post("/v1/recommend", json={"user_id": "u1", "k": 1000}).json()

    features.fails = True
    again = client.post("/v1/score", json=body).json()
    assert (again["step"], again["degraded"], again["features"]) == ("cached_vector", "feature store", "none")
    assert again["scores"] == fused["scores"]
    same = client.post("/v1/recommend", json={"user_id": "u1", "k": 1000}).json()
    assert same["items"] == best["items"]  # what was seen is still left out
    never = client.post("/v1/score", json={**body, "user_id": "u2"}).json()
    assert (never["step"], never["features"]) == ("popularity", "none")
    counts = making.histories().counts(making.N_ITEMS)
    assert [s["score"] for s in never["scores"]] == [counts[5], counts[6], None]
    popular = client.post("/v1/recommend", json={"user_id": "u2", "k": 5}).json()["items"]
    order = sorted(range(making.N_ITEMS - 1), key=lambda n: (-counts[n], n))[:5]
    assert [item["item_id"] for item in popular] == [making.catalog().items.ids[n] for n in order]
    assert all(item["shares"] == {} for item in popular)
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["features"]) == (200, "failing")
    text = client.get("/metrics").text
    assert 'recsys_fallbacks_total{reason="feature store",step="cached_vector"} 2.0' in text
    assert 'recsys_fallbacks_total{reason="feature store",step="popularity"} 2.0' in text

    features.fails = False
    time.sleep(1.05)  # the breaker leaves the store alone for a second
    back = client.post("/v1/score", json={**body, "user_id": "u2"}).json()
    assert (back["step"], back["features"]) == ("fused", "online")


def test_no_time_for_the_model(model: Recommender) -> None:
    """The model takes longer than is left: the vector of before, or popularity."""
    from recsys.serving.metrics import Metrics

    metrics = Metrics()
    people, watch = People(None, ServiceConfig(), metrics), Stopwatch(metrics)
    soon, far = time.perf_counter() + 5, time.perf_counter() + 1e6
    assert people.find(model, Asked("u1", None), far, watch).step == "fused"
    people._row_seconds = 1000.0
    assert people.find(model, Asked("u1", None), soon, watch).step == "fused"  # the vector of this very history is held
    stale = people.find(replace_history(model), Asked("u1", None), soon, watch)
    assert (stale.step, stale.reason, stale.source) == ("cached_vector", "deadline", "snapshot")
    other = people.find(model, Asked(None, ["i1"]), soon, watch)
    assert (other.step, other.reason, other.source) == ("popularity", "deadline", "request")
    # One slow pass does not turn the model off for good.
    for _ in range(200):
        last = people.find(model, Asked(None, ["i1"]), time.perf_counter() + 5, watch)
    assert last.step == "fused"


def replace_history(model: Recommender) -> Recommender:
    """The same model with other histories, under the same space."""
    bundle = model.bundle
    rows = [row[:-1] for row in bundle.histories]
    return Recommender(replace(bundle, histories=type(bundle.histories).of_rows(rows)))


class _Damaged:
    def __init__(self, ranker: object) -> None:
        self._ranker = ranker

    def __getattr__(self, name: str) -> object:
        return getattr(self._ranker, name)

    def represent(self, queries: object) -> np.ndarray:
        return np.full((len(queries), making.DIM), np.nan, dtype=np.float32)  # type: ignore[arg-type]


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    bundle = load_bundle(making.bundle(tmp_path / "b").path)
    damaged = Recommender(replace(bundle, ranker=_Damaged(bundle.ranker)))  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError):
        create_app(damaged)  # it does not even start
    live = Recommender(bundle)
    app = create_app(live)
    client = TestClient(app)
    object.__setattr__(live.state, "ranker", _Damaged(bundle.ranker))
    answer = client.post("/v1/score", json={"user_id": "u1", "candidates": ["i1"]}).json()
    assert (answer["step"], answer["degraded"]) == ("popularity", "model")


def test_a_full_queue_answers_503_with_retry_after(model: Recommender) -> None:
    begun, release = threading.Event(), threading.Event()

    class Slow(Features):
        def history(self, user_id: str) -> list[str] | None:
            if user_id == "slow":
                begun.set()
                release.wait(20)
            return ["i1"]

    with TestClient(create_app(model, Slow({}), config=ServiceConfig(workers=1, queue=1))) as client:
        body = {"user_id": "u1", "candidates": ["i1"]}
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda who=who: answers.append(client.post("/v1/score", json={**body, "user_id": who}).status_code))
            for who in ("slow", "u2")
        ]
        threads[0].start()
        assert begun.wait(10)
        threads[1].start()
        deadline = time.monotonic() + 10
        while "recsys_queue_requests 2.0" not in client.get("/metrics").text:
            assert time.monotonic() < deadline
        full = client.post("/v1/score", json=body)
        assert full.status_code == 503 and full.headers["retry-after"] == "1" and "waiting" in full.json()["detail"]
        assert client.get("/healthz").status_code == 200
        release.set()
        for thread in threads:
            thread.join()
        assert answers == [200, 200]
        assert 'recsys_rejected_total{reason="queue_full"} 1.0' in client.get("/metrics").text


def test_deadlines_of_the_caller(model: Recommender) -> None:
    client = TestClient(create_app(model))
    body = {"user_id": "u1", "candidates": ["i1"]}
    assert client.post("/v1/score", json=body, headers={"X-Deadline-Ms": "500"}).status_code == 200
    late = client.post("/v1/score", json=body, headers={"X-Deadline-Ms": "0.000001"})
    assert late.status_code == 503 and "deadline" in late.json()["detail"]
    for bad in ("soon", "-1", "0", "nan", "inf", "1e9"):
        assert client.post("/v1/score", json=body, headers={"X-Deadline-Ms": bad}).status_code == 422
