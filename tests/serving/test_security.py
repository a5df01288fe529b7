"""What callers may not do, and what they are told."""

from __future__ import annotations

import io
import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pipelines.commands.serve import read_options
from recsys.errors import ConfigError
from recsys.serving.access_log import JsonFormatter
from recsys.serving.app import create_app
from recsys.serving.config import Limits, ServiceConfig
from recsys.serving.middleware import OPEN_PATHS, _host
from recsys.serving.recommender import Recommender
from tests.serving import making
from tests.serving.test_app import is_problem

TOKEN = "a secret of sixteen characters"
BODY = {"user_id": "u1", "candidates": ["i1"]}


@pytest.fixture
def model(tmp_path: Path) -> Recommender:
    return making.recommender(tmp_path)


@pytest.fixture
def client(model: Recommender) -> Iterator[TestClient]:
    with TestClient(create_app(model), raise_server_exceptions=False) as client:
        yield client


def test_without_the_token_only_probes_and_the_empty_page_answer(model: Recommender) -> None:
    client = TestClient(create_app(model, config=ServiceConfig(token=TOKEN)), raise_server_exceptions=False)
    for headers in (
        {},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer é".encode()},
    ):
        refused = client.post("/v1/score", json=BODY, headers=headers)  # type: ignore[arg-type]
        is_problem(refused, 401)
        assert refused.headers["www-authenticate"] == "Bearer"
    for scheme in ("Bearer", "bearer"):
        assert client.post("/v1/score", json=BODY, headers={"Authorization": f"{scheme} {TOKEN}"}).status_code == 200
    for path in OPEN_PATHS:
        assert client.get(path).status_code == 200, path
    for path in ("/metrics", "/docs", "/openapi.json", "/v1/model", "/v1/users", "/nowhere", "/healthz/", "/page/../v1/model"):
        assert client.get(path).status_code in (401, 404), path
    assert 'recsys_rejected_total{reason="token"}' in client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    assert TOKEN not in repr(ServiceConfig(token=TOKEN))


def test_the_token_comes_from_the_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECSYS_TOKEN", raising=False)
    assert read_options(None, ["queue=3"]) == ServiceConfig(queue=3)
    for bad in (["token=a secret of sixteen"], ["deadline=3"], ["limits.body=3"]):
        with pytest.raises(ConfigError):
            read_options(None, bad)
    monkeypatch.setenv("RECSYS_TOKEN", TOKEN)
    assert read_options(None, None).token == TOKEN
    monkeypatch.setenv("RECSYS_TOKEN", "short")
    with pytest.raises(ConfigError, match="16"):
        read_options(None, None)


def test_a_page_of_another_name_cannot_reach_the_service(model: Recommender) -> None:
    client = TestClient(create_app(model, config=ServiceConfig(hosts=("localhost", "127.0.0.1", "[::1]"))))
    for host in ("localhost", "127.0.0.1:8080", "LOCALHOST:1", "[::1]:8080"):
        assert client.post("/v1/score", json=BODY, headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "localhost.evil.example", "", "127.0.0.1.evil.example:80", "[::1].evil"):
        is_problem(client.post("/v1/score", json=BODY, headers={"Host": host}), 400)
    assert _host(b"[::1]:80") == "[::1]"


def test_a_form_of_another_site_is_not_read(client: TestClient) -> None:
    """Without `application/json`, which a browser sends across sites only when it is allowed to, nothing is done."""
    body = json.dumps({"events": [{"user_id": "u1", "item_id": "i30"}]})
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        answer = client.post("/v1/events", content=body, headers={"content-type": kind} if kind else {})
        assert answer.status_code == 422, kind
    assert client.post("/v1/score", json=BODY).json()["features"] == "snapshot"
    assert (
        "access-control-allow-origin"
        not in client.options("/v1/score", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}).headers
    )


def test_one_address_has_its_rate(model: Recommender) -> None:
    client = TestClient(create_app(model, config=ServiceConfig(limits=Limits(requests_per_second=3))))
    answers = [client.post("/v1/score", json=BODY) for _ in range(5)]
    assert [a.status_code for a in answers].count(429) >= 1
    refused = next(a for a in answers if a.status_code == 429)
    is_problem(refused, 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert client.get("/healthz").status_code == 200


def test_deep_wide_and_odd_bodies(client: TestClient) -> None:
    def send(content: bytes) -> int:
        return client.post("/v1/score", content=content, headers={"content-type": "application/json"}).status_code

    assert send(b"[" * 500_000) == 422
    assert send(b'{"a":' * 100_000 + b"1" + b"}" * 100_000) == 422
    assert send(b'{"user_id": "u1", "candidates": ' + b"[" * 20 + b"]" * 20 + b"}") == 422
    assert send(b'{"user_id": "u1", "candidates": ["i1"], "candidates": ["' + b"x" * 600 + b'"]}') == 422
    for odd in (b"1" * 5000, b"1e999999", b"-Infinity", b'"\\ud800"', b"\xff", b"\x00", b"nul", b"{}{}", b'{"user_id": ' + b"9" * 5000 + b"}"):
        assert send(odd) in (400, 422), odd[:20]
    assert send(b" " * 2_000_001) == 413
    is_problem(client.post("/v1/score", json={**BODY, "candidates": ["i1"] * 10_001}), 422)


def test_paths_lead_nowhere(client: TestClient) -> None:
    for path in ("/page/../../../../etc/passwd", "/page/%2e%2e/app.py", "/page/index.html", "/page//etc/passwd", "/page/app.js/", "/page/..%5c..%5cx", "/%00"):
        answer = client.get(path, follow_redirects=False)
        assert answer.status_code in (404, 307), path
        assert "root:" not in answer.text
    assert client.get("/v1/similar/..%2F..%2Fetc%2Fpasswd").status_code == 404
    assert client.get("/v1/similar/" + "x" * 513).status_code == 422


def test_no_upload_of_models_and_no_pickle(client: TestClient, model: Recommender) -> None:
    routes = client.get("/openapi.json").json()["paths"]
    writing = {path for path, methods in routes.items() if {"post", "put", "patch", "delete"} & set(methods)}
    assert writing == {"/v1/score", "/v1/score/batch", "/v1/recommend", "/v1/recommend/batch", "/v1/items", "/v1/events"}
    for kind in ("application/octet-stream", "application/x-pickle", "application/json"):
        assert client.post("/v1/items", content=pickle.dumps({"items": []}), headers={"content-type": kind}).status_code in (400, 422)


@pytest.mark.parametrize(
    "text", ["\u202eevil", "a\u0000b", "😀" * 100, "e\u0301", "ﷺ" * 50, "<script>alert(1)</script>", "{{7*7}}", "%s%n", "../../x", "'; DROP TABLE items; --"]
)
def test_unicode_tricks_travel_whole_and_do_nothing(client: TestClient, text: str) -> None:
    added = client.post("/v1/items", json={"items": [{"item_id": text, "title": f"film {text}"}]})
    assert added.status_code == 200, added.text
    answer = client.post("/v1/recommend", json={"history": ["i1"], "k": 1000}).json()
    (mine,) = [item for item in answer["items"] if item["item_id"] == text]
    assert mine["title"] == f"film {text}"
    assert client.post("/v1/recommend", json={"user_id": text}).status_code == 404


def test_the_page_forbids_foreign_code(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "http://" not in page.text and "https://" not in page.text
    script = client.get("/page/app.js").text
    assert "innerHTML" not in script and "https://" not in script and "eval(" not in script


def logged(model: Recommender, config: ServiceConfig) -> tuple[str, str]:
    """What the log and the metrics say after some requests."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("recsys")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        client = TestClient(create_app(model, config=config), raise_server_exceptions=False)
        client.post("/v1/score", json=BODY)
        client.post("/v1/score", json={"user_id": "secret-user", "candidates": ["secret-item"]})
        client.get("/v1/similar/secret-item")
        client.post("/v1/events", json={"events": [{"user_id": "secret-user", "item_id": "secret-item"}]})
        return stream.getvalue(), client.get("/metrics").text
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def test_logs_are_json_and_hold_no_ids_unless_asked_for(model: Recommender) -> None:
    text, metrics = logged(model, ServiceConfig())
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["status"] for line in lines] == [200, 404, 404, 200]
    assert lines[0]["step"] == "fused" and lines[0]["version"] == model.version and lines[0]["route"] == "/v1/score" and len(lines[0]["request_id"]) == 16
    for secret in ("secret", "u1", "i1"):
        assert secret not in text.replace("recsys", "") and f'"{secret}' not in metrics
    text, metrics = logged(model, ServiceConfig(ids_in_logs=True))
    assert json.loads(text.splitlines()[0])["user_id"] == "u1"
    assert "secret" not in metrics
