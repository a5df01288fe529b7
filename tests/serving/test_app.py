from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient

from recsys.errors import ConfigError
from recsys.serving.app import create_app
from recsys.serving.config import ServiceConfig
from recsys.serving.recommender import Recommender
from recsys.serving.server import require_safe
from recsys.types import Queries
from tests.serving import making


class Features:
    def __init__(self, rows: dict[str, list[str]]) -> None:
        self.rows, self.fails = rows, False

    def history(self, user_id: str) -> list[str] | None:
        if self.fails:
            raise OSError("disk on fire at /secret/place")
        return self.rows.get(user_id)


@pytest.fixture
def model(tmp_path: Path) -> Recommender:
    return making.recommender(tmp_path)


@pytest.fixture
def client(model: Recommender) -> Iterator[TestClient]:
    with TestClient(create_app(model), raise_server_exceptions=False) as client:
        yield client


def is_problem(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    return str(body["detail"])


def test_score_answers_every_candidate_and_names_the_model(client: TestClient, model: Recommender) -> None:
    answer = client.post("/v1/score", json={"user_id": "u1", "candidates": ["i1", "nowhere", making.UNSCORABLE]}).json()
    assert answer["model"] == {"name": "small", "version": model.version}
    assert answer["spaces"] == model.spaces
    assert answer["features"] == "snapshot"
    assert [s["reason"] for s in answer["scores"]] == [None, "unknown item", "not scorable"]
    assert [s["score"] is None for s in answer["scores"]] == [False, True, True]


def test_served_scores_are_the_offline_scores(client: TestClient) -> None:
    ranker, histories, ids = making.ranker(), making.histories(), list(making.catalog().items.ids)
    offline = ranker.score(Queries(np.arange(making.N_USERS), histories), np.arange(making.N_ITEMS))
    for num, user in enumerate(making.users().ids):
        served = client.post("/v1/score", json={"user_id": user, "candidates": ids[:-1]}).json()["scores"]
        np.testing.assert_allclose([s["score"] for s in served], offline[num, :-1], atol=1e-5)
        left = [i for i in range(making.N_ITEMS - 1) if i not in histories[num]]
        best = sorted(left, key=lambda i: (-offline[num, i], i))[:10]
        items = client.post("/v1/recommend", json={"user_id": user, "k": 10}).json()["items"]
        assert [item["item_id"] for item in items] == [ids[i] for i in best]
        for item in items:
            assert sum(item["shares"].values()) == pytest.approx(item["score"], abs=1e-5)


def test_a_history_with_unknown_items_says_which_were_ignored(client: TestClient) -> None:
    answer = client.post("/v1/recommend", json={"history": ["i1", "nowhere", "i2", "nowhere"], "k": 3}).json()
    assert answer["features"] == "request"
    assert answer["history"] == {"used": 2, "ignored": ["nowhere"]}
    same = client.post("/v1/recommend", json={"history": ["i1", "i2"], "k": 3}).json()
    assert answer["items"] == same["items"]


def test_the_feature_store_gives_the_history(model: Recommender) -> None:
    features = Features({"fresh": ["i1", "gone", "i2"], "u1": []})
    client = TestClient(create_app(model, features, config=ServiceConfig(degrade=False)), raise_server_exceptions=False)
    answer = client.post("/v1/recommend", json={"user_id": "fresh", "k": 3}).json()
    assert (answer["features"], answer["history"]) == ("online", {"used": 2, "ignored": ["gone"]})
    assert client.post("/v1/recommend", json={"user_id": "u1"}).json()["history"]["used"] == 0
    assert "'u2'" in is_problem(client.post("/v1/score", json={"user_id": "u2", "candidates": ["i1"]}), 404)
    assert client.get("/readyz").status_code == 200
    features.fails = True
    broken = client.post("/v1/score", json={"user_id": "u1", "candidates": ["i1"]})
    assert "secret" not in is_problem(broken, 503)
    assert int(broken.headers["retry-after"]) > 0
    is_problem(client.get("/readyz"), 503)
    assert client.get("/healthz").status_code == 200
    assert client.post("/v1/score", json={"history": ["i1"], "candidates": ["i2"]}).status_code == 200


def test_unknown_ids_are_404(client: TestClient) -> None:
    assert "history" in is_problem(client.post("/v1/recommend", json={"user_id": "who"}), 404)
    is_problem(client.get("/v1/similar/nowhere"), 404)
    is_problem(client.get("/v1/nothing"), 404)
    is_problem(client.get("/v1/score"), 405)
    is_problem(client.get(f"/v1/similar/{making.UNSCORABLE}"), 422)


@pytest.mark.parametrize(
    "body",
    [
        {"candidates": ["i1"]},
        {"user_id": "u1", "history": ["i1"], "candidates": ["i1"]},
        {"user_id": "u1", "candidates": []},
        {"user_id": "u1", "candidates": ["x"] * 10_001},
        {"user_id": 1, "candidates": ["i1"]},
        {"user_id": "u1", "candidates": "i1"},
        {"user_id": "", "candidates": ["i1"]},
        {"history": ["i1"] * 1001, "candidates": ["i1"]},
        {"user_id": "u1", "candidates": ["i1"], "unknown": 1},
        {"user_id": "\ud800", "candidates": ["i1"]},
    ],
)
def test_bodies_that_are_not_valid(client: TestClient, body: dict[str, object]) -> None:
    is_problem(client.post("/v1/score", content=json.dumps(body), headers={"content-type": "application/json"}), 422)


def test_what_is_not_json_and_what_is_too_large(client: TestClient, model: Recommender) -> None:
    for content in (b"", b"{", b"\xff\xfe", b"[1]", b"NaN", b'{"user_id": NaN}'):
        is_problem(client.post("/v1/score", content=content, headers={"content-type": "application/json"}), 422)
    is_problem(client.post("/v1/recommend", json={"user_id": "u1", "k": 1001}), 422)
    is_problem(client.get("/v1/similar/i1?k=0"), 422)
    small = TestClient(create_app(model, body_limit=100))
    is_problem(small.post("/v1/score", json={"user_id": "u1", "candidates": ["i1"] * 100}), 413)
    is_problem(small.post("/v1/score", content=iter([b"x" * 60, b"x" * 60])), 413)


def test_odd_ids_travel_whole(client: TestClient) -> None:
    answer = client.get(f"/v1/similar/{quote(making.ODD_ID, safe='')}?k=3").json()
    assert answer["item_id"] == making.ODD_ID
    assert len(answer["items"]) == 3
    score = client.post("/v1/score", json={"user_id": "u1", "candidates": [making.ODD_ID, "<img src=x>"]})
    assert score.json()["scores"][0]["item_id"] == making.ODD_ID
    assert score.headers["content-type"] == "application/json"


def test_metrics_count_by_route_template(client: TestClient) -> None:
    client.post("/v1/score", json={"user_id": "u1", "candidates": ["nowhere"]})
    client.get("/v1/similar/i1")
    client.get("/v1/some/other")
    text = client.get("/metrics").text
    assert 'recsys_requests_total{route="/v1/score",status="200"} 1.0' in text
    assert 'recsys_requests_total{route="/v1/similar/{item_id:path}",status="200"} 1.0' in text
    assert 'recsys_requests_total{route="unmatched",status="404"} 1.0' in text
    assert 'recsys_candidates_unscored_total{reason="unknown item"} 1.0' in text
    assert 'recsys_request_seconds_bucket{le="0.005",route="/v1/score"}' in text


def test_the_api_describes_itself_with_examples(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert schema["components"]["schemas"]["ScoreRequest"]["examples"]
    assert {"/v1/score", "/v1/recommend", "/healthz", "/readyz", "/metrics"} <= set(schema["paths"])
    assert client.get("/docs").status_code == 200


def test_new_items_show_in_the_service(client: TestClient, model: Recommender) -> None:
    model.add_items([{"item_id": "new", "title": "a new film"}])
    answer = client.post("/v1/score", json={"user_id": "u1", "candidates": ["new"]}).json()
    assert answer["scores"][0]["reason"] is None
    assert answer["model"]["version"].endswith("+1")


def test_other_machines_are_kept_out_unless_asked_for() -> None:
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        require_safe(host, token=None, allow_remote=False)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", ""):
        with pytest.raises(ConfigError, match="allow-remote"):
            require_safe(host, token=None, allow_remote=False)
        require_safe(host, token=None, allow_remote=True)
        require_safe(host, token="a secret of sixteen", allow_remote=False)


def test_over_a_real_socket(model: Recommender) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(model), host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            served = client.post("/v1/score", json={"user_id": "u1", "candidates": ["i1", "i2"]}).json()["scores"]
            np.testing.assert_allclose([s["score"] for s in served], model.score("u1", ["i1", "i2"])["score"], atol=1e-5)
            is_problem(client.post("/v1/score", content=b"{"), 422)
    finally:
        server.should_exit = True
        thread.join(timeout=20)
    assert not thread.is_alive()
