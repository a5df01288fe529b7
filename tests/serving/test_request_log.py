from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from recsys.serving import request_log
from recsys.serving.app import app_of
from recsys.serving.assembly import assemble
from recsys.serving.config import ServiceConfig
from recsys.serving.live import LiveModel
from recsys.serving.request_log import RequestLog
from recsys.serving.schemas import RecommendRequest
from recsys.serving.scoring import Scoring
from tests.serving import making


def read(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(sorted(folder.glob("*.parquet")))


def test_what_was_shown_is_logged_with_its_chance(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    service = assemble(making.recommender(tmp_path), config=ServiceConfig(request_log=folder))
    with TestClient(app_of(service)) as client:
        answers = [client.post("/v1/recommend", json=body) for body in ({"user_id": "u1", "k": 3}, {"user_id": "u1", "k": 2}, {"history": ["i1"], "k": 1})]
        client.post("/v1/recommend", json={"user_id": "who"})
    frame = read(folder)  # closing wrote what waited
    shown = [item["item_id"] for answer in answers for item in answer.json()["items"]]
    assert frame["item_id"].to_list() == shown and frame["rank"].to_list() == [1, 2, 3, 1, 2, 1]
    assert frame["propensity"].to_list() == [1.0] * 6 and not frame["explored"].any()
    assert frame["request_id"].to_list() == [a.headers["x-request-id"] for a in answers for _ in a.json()["items"]]
    users = frame["user"].to_list()
    assert users[0] == users[4] and "u1" not in users and users[5] is None
    assert service.metrics.logged.labels("written")._value.get() == 6


def test_hashes_stay_over_restarts_and_ids_are_there_on_request(tmp_path: Path) -> None:
    seen = []
    for number, ids in enumerate((False, False, True)):
        config = ServiceConfig(request_log=tmp_path / "log", ids_in_logs=ids)
        with TestClient(app_of(assemble(making.recommender(tmp_path / str(number)), config=config))) as client:
            client.post("/v1/recommend", json={"user_id": "u1", "k": 1})
        seen = read(tmp_path / "log").sort("time")["user"].to_list()
    assert seen[0] == seen[1] != seen[2] == "u1"


def test_inverse_propensities_give_back_the_value_of_the_plain_list(tmp_path: Path) -> None:
    """The estimate of how often the greatest item is shown first, from explored lists, is what the plain order does: always."""
    model = making.recommender(tmp_path)
    folder = tmp_path / "log"
    from recsys.serving.metrics import Metrics

    metrics = Metrics()
    log = RequestLog(folder, metrics)
    scoring = Scoring(LiveModel(model), None, ServiceConfig(explore=0.5), metrics, log=log, seed=1)
    plain = model.recommend(users=["u1"], k=4).item_ids("u1")
    n, explored = 600, 0
    for _ in range(n):
        answer = scoring.recommend(RecommendRequest(user_id="u1", k=2), scoring.call())
        explored += answer["explored"]
        assert {i["item_id"] for i in answer["items"]} <= set(plain)
    log.close()
    assert 0.4 < explored / n < 0.6
    frame = read(folder)
    first = frame.filter((pl.col("rank") == 1) & (pl.col("item_id") == plain[0]))
    assert first["propensity"].unique().to_list() == pytest.approx([0.5 + 0.5 / 4])
    for place, item in ((1, plain[0]), (2, plain[1])):
        hits = frame.filter((pl.col("rank") == place) & (pl.col("item_id") == item))
        assert (1 / hits["propensity"]).sum() / n == pytest.approx(1.0, abs=0.12)
    assert len(frame) == 2 * n


def test_a_full_disk_loses_rows_and_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "log"
    service = assemble(making.recommender(tmp_path), config=ServiceConfig(request_log=folder))

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(request_log, "write_bytes", full)
    with TestClient(app_of(service)) as client:
        assert client.post("/v1/recommend", json={"user_id": "u1", "k": 3}).status_code == 200
    assert list(folder.glob("*.parquet")) == []
    assert service.metrics.logged.labels("dropped")._value.get() == 3


def test_rows_that_find_no_room_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.serving.metrics import Metrics
    from recsys.serving.person import Person

    monkeypatch.setattr(request_log, "MOST_ROWS", 3)
    metrics = Metrics()
    log = RequestLog(tmp_path, metrics, rows=1000, seconds=1000)
    person = Person("u", "request", np.zeros(0, dtype=np.int64), (), "fused", None)
    items = [{"item_id": str(n), "rank": n + 1, "score": 0.5} for n in range(5)]
    log.add("r", "m", "1", person, items, np.ones(5), False)
    log.close()
    assert metrics.logged.labels("dropped")._value.get() == 2 and metrics.logged.labels("written")._value.get() == 3
    assert len(read(tmp_path)) == 3
