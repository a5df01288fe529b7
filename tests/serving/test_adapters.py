"""Ray Serve and MLflow answer what the service answers."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from recsys.serving.app import create_app
from recsys.serving.recommender import Recommender
from tests.serving import making

SCORE = {"user_id": "u1", "candidates": ["i1", "nowhere", "i2"]}
BEST = {"history": ["i1", "i2"], "k": 3}


def expected(bundle: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    client = TestClient(create_app(Recommender(making.load_bundle(bundle))))
    return client.post("/v1/score", json=SCORE).json(), client.post("/v1/recommend", json=BEST).json()


def test_mlflow(tmp_path: Path) -> None:
    import mlflow.pyfunc
    import pandas as pd

    from infra.mlflow_model import save

    bundle = making.bundle(tmp_path / "bundle").path
    save(bundle, tmp_path / "model")
    assert not list((tmp_path / "model").rglob("*.pkl"))
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    score, best = model.predict(pd.DataFrame([SCORE, BEST]))
    wanted_score, wanted_best = expected(bundle)
    assert [s["reason"] for s in score["scores"]] == [s["reason"] for s in wanted_score["scores"]]
    np.testing.assert_allclose([s["score"] or 0 for s in score["scores"]], [s["score"] or 0 for s in wanted_score["scores"]], atol=1e-6)
    assert score["model"]["version"] == wanted_score["model"]["version"]
    assert best["items"] == wanted_best["items"]


def check_ray(client: httpx.Client, bundle: Path) -> None:
    score, best = client.post("/v1/score", json=SCORE), client.post("/v1/recommend", json=BEST)
    wanted_score, wanted_best = expected(bundle)
    assert (score.json(), best.json()["items"]) == (wanted_score, wanted_best["items"])
    for path, content, status in (
        ("/v1/score", json.dumps({**SCORE, "user_id": "who"}).encode(), 404),
        ("/v1/score", b"{", 422),
        ("/v1/recommend", json.dumps({**BEST, "categories": {"allow": ["opera"]}}).encode(), 422),
        ("/elsewhere", b"{}", 404),
    ):
        answer = client.post(path, content=content)
        assert answer.status_code == status and answer.json()["detail"]
    assert client.get("/v1/score").status_code == 404


def test_the_deployment_of_ray_serve_without_ray(tmp_path: Path) -> None:
    pytest.importorskip("ray.serve", reason="ray.serve needs grpcio-reflection")
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from infra.ray_serve import Scorer

    bundle = making.bundle(tmp_path / "bundle").path
    scorer = Scorer.func_or_class(str(bundle))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (await scorer(Request(scope, receive)))(scope, receive, send)

    check_ray(TestClient(app), bundle)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif("RECSYS_RAY_SERVE" not in os.environ, reason="a whole Ray Serve takes minutes to start on a busy machine; set RECSYS_RAY_SERVE=1")
def test_ray_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before the import reads it: on a busy machine a proxy takes its time to start.
    monkeypatch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "300")
    ray = pytest.importorskip("ray")
    serve = pytest.importorskip("ray.serve", reason="ray.serve needs grpcio-reflection")
    monkeypatch.setattr("ray.serve._private.api.HTTP_PROXY_TIMEOUT", 300, raising=False)
    from infra.ray_serve import application

    bundle = making.bundle(tmp_path / "bundle").path
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(application(str(bundle)), name="scorer", route_prefix="/")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
            check_ray(client, bundle)
        serve.shutdown()
    finally:
        ray.shutdown()
