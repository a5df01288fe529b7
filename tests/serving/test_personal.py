"""Batches, filters, explanations, timing, events: what callers ask beyond the first two endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from recsys.serving.app import create_app
from recsys.serving.bundle import load_bundle
from recsys.serving.config import Limits, ServiceConfig
from recsys.serving.features import Event
from recsys.serving.recommender import Recommender
from recsys.types import Queries
from tests.serving import making


@pytest.fixture
def model(tmp_path: Path) -> Recommender:
    return making.recommender(tmp_path)


@pytest.fixture
def client(model: Recommender) -> Iterator[TestClient]:
    with TestClient(create_app(model)) as client:
        yield client


def test_a_batch_answers_what_single_requests_answer(client: TestClient) -> None:
    score = [{"user_id": f"u{n}", "candidates": ["i1", "i2", "nowhere"]} for n in range(5)] + [{"history": ["i3"], "candidates": ["i4"]}]
    found = client.post("/v1/score/batch", json={"requests": score}).json()["answers"]
    for request, answer in zip(score, found, strict=True):
        alone = client.post("/v1/score", json=request).json()
        assert [s["reason"] for s in answer["scores"]] == [s["reason"] for s in alone["scores"]]
        np.testing.assert_allclose([s["score"] or 0 for s in answer["scores"]], [s["score"] or 0 for s in alone["scores"]], atol=1e-5)
    wanted = [{"user_id": f"u{n}", "k": n + 1} for n in range(5)]
    found = client.post("/v1/recommend/batch", json={"requests": wanted}).json()["answers"]
    for request, answer in zip(wanted, found, strict=True):
        alone = client.post("/v1/recommend", json=request).json()
        assert [item["item_id"] for item in answer["items"]] == [item["item_id"] for item in alone["items"]]


def test_one_of_a_batch_fails_alone(client: TestClient) -> None:
    body = {"requests": [{"user_id": "who", "candidates": ["i1"]}, {"user_id": "u1", "candidates": ["i1"]}]}
    first, second = client.post("/v1/score/batch", json=body).json()["answers"]
    assert first["status"] == 404 and "'who'" in first["detail"]
    assert second["step"] == "fused"
    body = {"requests": [{"user_id": "u1", "categories": {"allow": ["opera"]}}, {"user_id": "who"}, {"user_id": "u1", "k": 2}]}
    bad, unknown, good = client.post("/v1/recommend/batch", json=body).json()["answers"]
    assert (bad["status"], unknown["status"], len(good["items"])) == (422, 404, 2)


def test_a_batch_has_limits(model: Recommender) -> None:
    client = TestClient(create_app(model, config=ServiceConfig(limits=Limits(batch_pairs=5))))
    request = {"user_id": "u1", "candidates": ["i1", "i2", "i3"]}
    assert client.post("/v1/score/batch", json={"requests": [request]}).status_code == 200
    assert "at most 5" in client.post("/v1/score/batch", json={"requests": [request] * 2}).json()["detail"]
    assert client.post("/v1/score/batch", json={"requests": [request] * 257}).status_code == 422
    assert client.post("/v1/score/batch", json={"requests": []}).status_code == 422


def with_categories(folder: Path) -> Recommender:
    bundle = load_bundle(making.bundle(folder / "b").path)
    table = bundle.catalog.table.with_columns(
        pl.Series("categories", [["drama", "war"] if n % 4 == 0 else ["drama"] if n % 2 else ["war"] for n in range(making.N_ITEMS)])
    )
    explanations = {"i2": "a quiet <b>war</b> film"}
    return Recommender(replace(bundle, catalog=type(bundle.catalog)(table), explanations=explanations), load_encoder=making.load_hashed)


def test_allow_deny_and_exclude(tmp_path: Path) -> None:
    client = TestClient(create_app(with_categories(tmp_path)))

    def ids(**more: object) -> set[str]:
        answer = client.post("/v1/recommend", json={"history": ["i1"], "k": 1000, "exclude_seen": False, **more})
        assert answer.status_code == 200, answer.text
        return {item["item_id"] for item in answer.json()["items"]}

    every = ids()
    number = {item: n for n, item in enumerate(making.catalog().items.ids)}
    assert len(every) == making.N_ITEMS - 1
    assert ids(categories={"allow": ["war"]}) == {item for item in every if number[item] % 2 == 0}
    assert ids(categories={"deny": ["war"]}) == {item for item in every if number[item] % 2}
    assert ids(categories={"allow": ["drama"], "deny": ["war"]}) == {item for item in every if number[item] % 2}
    assert ids(exclude=["i1", "i5", "nowhere"]) == every - {"i1", "i5"}
    assert ids(categories={"allow": []}) == set()
    refused = client.post("/v1/recommend", json={"history": [], "categories": {"allow": ["wat"]}})
    assert refused.status_code == 422 and "did you mean 'war'" in refused.json()["detail"]


def test_filters_keep_the_order_of_the_rest(tmp_path: Path) -> None:
    client = TestClient(create_app(with_categories(tmp_path)))
    plain = client.post("/v1/recommend", json={"user_id": "u2", "k": 1000}).json()["items"]
    some = client.post("/v1/recommend", json={"user_id": "u2", "k": 3, "categories": {"allow": ["war"]}}).json()["items"]
    number = {item: n for n, item in enumerate(making.catalog().items.ids)}
    assert [i["item_id"] for i in some] == [i["item_id"] for i in plain if number[i["item_id"]] % 2 == 0][:3]


def test_explanations_name_the_nearest_of_the_history_and_the_stored_reason(tmp_path: Path) -> None:
    model = with_categories(tmp_path)
    client = TestClient(create_app(model))
    history = ["i1", "i5", "i9", "i5", "i20"]
    answer = client.post("/v1/recommend", json={"history": history, "k": 1000, "explain": True}).json()
    vectors = making.ranker().items()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    number = {item: n for n, item in enumerate(making.catalog().items.ids)}
    for item in answer["items"]:
        cosine = {seen: float(unit[number[item["item_id"]]] @ unit[number[seen]]) for seen in set(history)}
        best = sorted(cosine, key=lambda seen: -cosine[seen])[:3]
        assert [near["item_id"] for near in item["because"]] == best
        np.testing.assert_allclose([near["likeness"] for near in item["because"]], [cosine[seen] for seen in best], atol=1e-5)
        assert item["reason"] == ("a quiet <b>war</b> film" if item["item_id"] == "i2" else None)
    plain = client.post("/v1/recommend", json={"history": history}).json()["items"][0]
    assert "because" not in plain and "reason" not in plain
    assert client.post("/v1/recommend", json={"history": [], "explain": True}).json()["items"][0]["because"] == []


def test_timing_on_request(client: TestClient) -> None:
    body = {"user_id": "u1", "candidates": ["i1"]}
    assert "timing_ms" not in client.post("/v1/score", json=body).json()
    timing = client.post("/v1/score", json={**body, "timing": True}).json()["timing_ms"]
    assert set(timing) == {"queue", "history", "encode", "score"} and all(value >= 0 for value in timing.values())
    assert "rank" in client.post("/v1/recommend", json={"user_id": "u1", "timing": True}).json()["timing_ms"]


def test_events_change_the_next_answer_as_the_offline_model_says(client: TestClient) -> None:
    ranker, ids = making.ranker(), list(making.catalog().items.ids)
    history = making.histories()[3]
    before = client.post("/v1/recommend", json={"user_id": "u3"}).json()
    assert before["features"] == "snapshot"
    told = client.post(
        "/v1/events", json={"events": [{"user_id": "u3", "item_id": "i30"}, {"user_id": "u3", "item_id": "later"}, {"user_id": "fresh", "item_id": "i4"}]}
    )
    assert told.json()["accepted"] == 3 and told.json()["unknown_items"] == ["later"]
    after = client.post("/v1/score", json={"user_id": "u3", "candidates": ids[:-1]}).json()
    assert after["features"] == "memory" and after["history"] == {"used": len(history) + 1, "ignored": ["later"]}
    expected = ranker.score(Queries.of_history(np.append(history, 30)), np.arange(making.N_ITEMS - 1))[0]
    np.testing.assert_allclose([s["score"] for s in after["scores"]], expected, atol=1e-5)
    assert "i30" not in [item["item_id"] for item in client.post("/v1/recommend", json={"user_id": "u3", "k": 1000}).json()["items"]]
    fresh = client.post("/v1/score", json={"user_id": "fresh", "candidates": ["i1"]}).json()["scores"][0]["score"]
    assert fresh == pytest.approx(float(ranker.score(Queries.of_history(np.array([4])), np.array([1]))[0, 0]), abs=1e-5)


@pytest.mark.parametrize(
    "event",
    [
        {"user_id": "u1"},
        {"user_id": "", "item_id": "i1"},
        {"user_id": "u1", "item_id": "i1", "time": "yesterday"},
        {"user_id": "u1", "item_id": "i1", "time": -1},
        {"user_id": "u1", "item_id": "i1", "time": 1e300},
        {"user_id": "u1", "item_id": "i1", "rating": 5},
        {"user_id": "u" * 513, "item_id": "i1"},
    ],
)
def test_events_that_are_none(client: TestClient, event: dict[str, object]) -> None:
    good = {"user_id": "u1", "item_id": "i30"}
    assert client.post("/v1/events", json={"events": [good, event]}).status_code == 422
    assert client.post("/v1/score", json={"user_id": "u1", "candidates": ["i1"]}).json()["features"] == "snapshot"


def test_events_go_to_a_store_that_takes_them(model: Recommender) -> None:
    class Reads:
        def history(self, user_id: str) -> list[str] | None:
            return ["i1"]

    class Writes(Reads):
        def __init__(self) -> None:
            self.got: list[Event] = []
            self.fails = False

        def push(self, events: list[Event]) -> None:  # type: ignore[override]
            if self.fails:
                raise OSError("/secret is full")
            self.got += events

    body = {"events": [{"user_id": "u1", "item_id": "i2", "time": 12.5}]}
    assert "takes no events" in TestClient(create_app(model, Reads())).post("/v1/events", json=body).json()["detail"]
    store = Writes()
    client = TestClient(create_app(model, store))
    assert client.post("/v1/events", json=body).status_code == 200
    assert store.got == [Event("u1", "i2", 12.5)]
    store.fails = True
    failed = client.post("/v1/events", json=body)
    assert failed.status_code == 503 and int(failed.headers["retry-after"]) > 0 and "secret" not in failed.text


def test_looking_around(client: TestClient, model: Recommender) -> None:
    about = client.get("/v1/model").json()
    assert (about["items"], about["users"], about["signals"]) == (making.N_ITEMS, making.N_USERS, ["id", "text"])
    assert about["takes_items"] and about["takes_events"] and about["previous_version"] is None
    assert len(client.get("/v1/items", params={"limit": 5}).json()["items"]) == 5
    found = client.get("/v1/items", params={"query": "TITLE 3 of"}).json()["items"]
    assert [item["item_id"] for item in found] == ["i3"] and found[0]["categories"] == ["drama"] and not found[0]["new"]
    assert client.get("/v1/items", params={"query": "title 3["}).json()["items"] == []  # no pattern
    assert client.get("/v1/users", params={"prefix": "u1"}).json()["user_ids"] == ["u1", "u10", "u11"]
    assert [item["item_id"] for item in client.get("/v1/users/u3/history").json()["items"]] == model.user_history("u3")
    assert client.get("/v1/users/who/history").status_code == 404
