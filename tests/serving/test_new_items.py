"""New items through the service: stored, scorable at once, there after a restart and in every model that comes."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from recsys.errors import DataError, RetryableError, SpaceMismatchError
from recsys.serving import item_journal
from recsys.serving.app import app_of
from recsys.serving.assembly import assemble
from recsys.serving.config import Limits, ServiceConfig
from recsys.serving.encoder_process import EncoderProcess
from recsys.serving.recommender import Recommender
from recsys.serving.service import Service
from recsys.serving.watcher import Watcher
from tests.serving import making
from tests.serving.sources import FolderSource

LOADER = "tests.serving.loaders:load_hashed"
NEW = {"item_id": "new", "title": "title 3 of the film", "categories": ["noir"]}


def service_of(folder: Path, bundle: Path | None = None, encoder: Any = None, **options: Any) -> Service:
    path = bundle or making.bundle(folder / "bundle").path
    model = Recommender(making.load_bundle(path, version=path.name), item_encoder=encoder or making.Hashed())
    return assemble(model, config=ServiceConfig(**options), new_items=folder / "new")


def reason(client: TestClient, item: str = "new") -> str | None:
    found: str | None = client.post("/v1/score", json={"user_id": "u1", "candidates": [item]}).json()["scores"][0]["reason"]
    return found


def test_text_becomes_scorable_and_survives_a_restart(tmp_path: Path) -> None:
    service = service_of(tmp_path)
    client = TestClient(app_of(service))
    assert reason(client) == "unknown item"
    answer = client.post("/v1/items", json={"items": [NEW]}).json()
    assert (answer["added"], answer["held"]) == (["new"], [])
    assert answer["model"]["version"].endswith("+1")
    score = client.post("/v1/score", json={"user_id": "u1", "candidates": ["new"]}).json()["scores"]
    library = making.recommender(tmp_path / "library")
    library.add_items([NEW])
    np.testing.assert_allclose([s["score"] for s in score], library.score("u1", ["new"])["score"], atol=1e-5)
    assert [item["item_id"] for item in client.get("/v1/items", params={"query": "TITLE 3 OF"}).json()["items"]] == ["i3", "new"]
    assert client.get("/v1/similar/new?k=1").json()["items"][0]["item_id"]
    best = client.post("/v1/recommend", json={"user_id": "u1", "k": 1000, "categories": {"allow": ["noir"]}}).json()["items"]
    assert [item["item_id"] for item in best] == ["new"] and best[0]["shares"]["id"] == 0.0
    assert 'recsys_new_items{state="scorable"} 1.0' in client.get("/metrics").text

    class Silent:
        def encode(self, config: Any, texts: Any) -> Any:
            raise AssertionError("the vectors were kept")

    again = TestClient(app_of(service_of(tmp_path, tmp_path / "bundle", Silent())))
    assert again.post("/v1/score", json={"user_id": "u1", "candidates": ["new"]}).json()["scores"] == score


def test_sending_again_does_no_harm_and_changing_is_refused(tmp_path: Path) -> None:
    client = TestClient(app_of(service_of(tmp_path)))
    for expected in ((["new"], []), ([], ["new"])):
        answer = client.post("/v1/items", json={"items": [NEW]}).json()
        assert (answer["added"], answer["held"]) == expected
    more = client.post("/v1/items", json={"items": [NEW, {"item_id": "more", "title": "another"}]}).json()
    assert (more["added"], more["held"]) == (["more"], ["new"])
    changed = client.post("/v1/items", json={"items": [{**NEW, "title": "other"}]})
    assert changed.status_code == 422 and "held with other fields" in changed.json()["detail"]
    held = client.post("/v1/items", json={"items": [{"item_id": "i1", "title": "title 1 of the film"}]})
    assert held.status_code == 422 and "holds already" in held.json()["detail"]


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({"title": "no id"}, "ids are strings"),
        ({"item_id": "x"}, "without text"),
        ({"item_id": "x", "title": "  "}, "without text"),
        ({"item_id": "x", "title": "t", "colour": "red"}, "colour"),
        ({"item_id": "x", "title": ["t"]}, "must be a string"),
        ({"item_id": "x", "title": 5}, "not valid"),
        ({"item_id": "x", "title": {"a": 1}}, "not valid"),
        ({"item_id": "x", "title": "t" * 20_001}, "not valid"),
        ({"item_id": "x" * 513, "title": "t"}, "512"),
        ({"item_id": "", "title": "t"}, "ids are strings"),
    ],
)
def test_items_that_cannot_be_taken_in(tmp_path: Path, item: dict[str, object], told: str) -> None:
    client = TestClient(app_of(service_of(tmp_path)))
    answer = client.post("/v1/items", json={"items": [NEW, item]})
    assert answer.status_code == 422 and told in answer.text
    assert reason(client) == "unknown item"
    assert list((tmp_path / "new").glob("*.json")) == []


def test_a_full_disk_is_told_and_nothing_is_half_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(app_of(service_of(tmp_path)))

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(item_journal, "write_bytes", full)
    answer = client.post("/v1/items", json={"items": [NEW]})
    assert answer.status_code == 503 and "No space left" in answer.json()["detail"] and "retry-after" in answer.headers
    assert reason(client) == "unknown item"
    monkeypatch.undo()
    assert client.post("/v1/items", json={"items": [NEW]}).status_code == 200


def test_there_is_room_for_so_many(tmp_path: Path) -> None:
    client = TestClient(app_of(service_of(tmp_path, limits=Limits(new_items=1))))
    assert client.post("/v1/items", json={"items": [NEW]}).status_code == 200
    assert "at most 1" in client.post("/v1/items", json={"items": [{"item_id": "b", "title": "b"}]}).json()["detail"]


def test_a_new_model_takes_the_items_over(tmp_path: Path) -> None:
    source = FolderSource(tmp_path / "registry")
    source.release("1")
    service = service_of(tmp_path, tmp_path / "registry" / "1")
    watcher = Watcher(service.live, source, service.overlay, service.metrics, item_encoder=making.Hashed())
    client = TestClient(app_of(service))
    client.post("/v1/items", json={"items": [NEW]})
    source.release("2", seed=2)
    assert watcher.poll() == "swapped" and reason(client) is None
    client.post("/v1/items", json={"items": [{"item_id": "second", "title": "of the second model"}]})
    source.point_to("1")
    assert watcher.poll() == "rolled_back"
    assert reason(client) is None and reason(client, "second") is None


def test_a_model_of_another_space_has_its_vectors_made_anew_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FolderSource(tmp_path / "registry")
    source.release("1")
    service = service_of(tmp_path, tmp_path / "registry" / "1")
    TestClient(app_of(service)).post("/v1/items", json={"items": [NEW]})
    monkeypatch.setattr(making, "TEMPLATE", "{title}!")
    source.release("2")
    asked: list[str] = []

    class Counting(making.Hashed):
        def encode(self, config: Any, texts: Any) -> Any:
            asked.extend(texts)
            return super().encode(config, texts)

    encoder = Counting()
    watcher = Watcher(service.live, source, service.overlay, service.metrics, item_encoder=encoder)
    assert watcher.poll() == "swapped" and asked == ["title 3 of the film!"]
    assert reason(TestClient(app_of(service))) is None
    again = service_of(tmp_path, tmp_path / "registry" / "2", encoder)
    assert len(asked) == 1 and reason(TestClient(app_of(again))) is None


def test_a_model_that_cannot_take_items_leaves_them_out_and_says_so(tmp_path: Path) -> None:
    service = service_of(tmp_path)
    TestClient(app_of(service)).post("/v1/items", json={"items": [NEW]})
    bundle = replace(making.load_bundle(tmp_path / "bundle"), encoders={}, ranker=making.ranker(1))
    other = assemble(Recommender(bundle), new_items=tmp_path / "new")
    client = TestClient(app_of(other))
    assert reason(client) is None  # its spaces are the same, and the vectors were kept
    assert not client.get("/v1/model").json()["takes_items"]
    refused = client.post("/v1/items", json={"items": [{"item_id": "b", "title": "b"}]})
    assert refused.status_code == 422 and "no encoder" in refused.json()["detail"]


def test_an_item_that_the_next_catalogue_holds_is_the_catalogues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(tmp_path)
    TestClient(app_of(service)).post("/v1/items", json={"items": [{"item_id": "i40", "title": "forty"}]})
    monkeypatch.setattr(making, "N_ITEMS", 41)
    bundle = making.bundle(tmp_path / "grown", seed=3)
    again = service_of(tmp_path, bundle.path)
    assert again.live.current.state.added == 0
    assert again.live.current.state.titles[40] == "i40"  # its own title, which is none


def test_an_encoder_that_fails_at_start_is_asked_again(tmp_path: Path) -> None:
    TestClient(app_of(service_of(tmp_path))).post("/v1/items", json={"items": [NEW]})
    journal = item_journal.ItemJournal(tmp_path / "other")
    journal.append([NEW], {})

    class Flaky(making.Hashed):
        fails = True

        def encode(self, config: Any, texts: Any) -> Any:
            if self.fails:
                raise RetryableError("its process died")
            return super().encode(config, texts)

    encoder = Flaky()
    model = Recommender(making.load_bundle(tmp_path / "bundle"), item_encoder=encoder)
    service = assemble(model, new_items=tmp_path / "other")
    client = TestClient(app_of(service))
    assert reason(client) == "unknown item"
    with pytest.raises(RetryableError):
        service.overlay.follow()
    encoder.fails = False
    service.overlay.follow()
    assert reason(client) is None


def test_services_that_share_a_folder_follow_each_other(tmp_path: Path) -> None:
    one = service_of(tmp_path)
    two = service_of(tmp_path, tmp_path / "bundle")
    TestClient(app_of(one)).post("/v1/items", json={"items": [NEW]})
    two.overlay.follow()
    assert reason(TestClient(app_of(two))) is None


def test_the_encoder_lives_in_another_process_and_may_die() -> None:
    encoder = EncoderProcess(LOADER)
    config = {"dim": making.TEXT_DIM, "template": making.TEMPLATE}
    try:
        assert encoder.pid is None
        space, vectors = encoder.encode(config, ["one", "two two"])
        here = making.Hashed().encode(config, ["one", "two two"])
        assert space == here[0]
        np.testing.assert_array_equal(vectors, here[1])
        first = encoder.pid
        assert first not in (None, os.getpid())
        os.kill(first, signal.SIGKILL)
        assert encoder.encode(config, ["one"])[0] == space  # another one was started
        assert encoder.pid not in (None, first)
        with pytest.raises(RetryableError, match="KeyError"):
            encoder.encode({"no": "dim"}, ["one"])
        assert encoder.encode(config, ["one"])[0] == space
    finally:
        encoder.close()
    assert encoder.pid is None


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [("raise_data", DataError, "bad text"), ("raise_space", SpaceMismatchError, "another space"), ("die", RetryableError, "ended before it answered")],
)
def test_what_the_encoder_raises_comes_back(name: str, kind: type[Exception], told: str) -> None:
    encoder = EncoderProcess(f"tests.serving.loaders:{name}")
    with pytest.raises(kind, match=told):
        encoder.encode({}, ["one"])
    encoder.close()


def test_an_encoder_that_hangs_is_ended() -> None:
    encoder = EncoderProcess("tests.serving.loaders:hang", timeout=3)
    with pytest.raises(RetryableError, match="took over 3 seconds"):
        encoder.encode({}, ["one"])
    assert encoder.pid is None
