"""Versions come and go under requests: good ones answer, bad ones change a metric and nothing else."""

from __future__ import annotations

import errno
import pickle
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from recsys.artifacts.artifact import Manifest, write_artifact
from recsys.artifacts.atomic import read_json, write_json
from recsys.errors import ArtifactError, DataError, RetryableError
from recsys.serving import model_source
from recsys.serving.app import app_of
from recsys.serving.assembly import assemble
from recsys.serving.live import LiveModel
from recsys.serving.model_source import BundleStore, RegistrySource, open_bundle
from recsys.serving.recommender import Recommender
from recsys.serving.service import Service
from recsys.serving.watcher import Watcher
from recsys.tracking import CHAMPION, Tracker, default_tracking_uri
from tests.serving import making
from tests.serving.sources import FolderSource

BODY = {"user_id": "u1", "candidates": [f"i{n}" for n in range(6)]}


@dataclass
class Stage:
    source: FolderSource
    store: BundleStore
    service: Service
    watcher: Watcher
    client: TestClient

    def version(self) -> str:
        return str(self.client.post("/v1/score", json=BODY).json()["model"]["version"])

    def metric(self, line: str) -> bool:
        return line in self.client.get("/metrics").text


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    source, store = FolderSource(tmp_path / "registry"), BundleStore(tmp_path / "kept")
    source.release("1")
    service = assemble(Recommender(open_bundle(source, store), load_encoder=making.load_hashed), new_items=tmp_path / "new")
    watcher = Watcher(service.live, source, service.overlay, service.metrics, keep=store.keep, item_encoder=making.Hashed(), refused_seconds=1000)
    with TestClient(app_of(service)) as client:
        yield Stage(source, store, service, watcher, client)


def test_a_good_version_answers_after_one_poll(stage: Stage) -> None:
    assert stage.version() == "1"
    assert stage.watcher.poll() == "unchanged"
    stage.source.release("2", seed=2)
    assert stage.version() == "1"
    assert stage.watcher.poll() == "swapped"
    answer = stage.client.post("/v1/score", json=BODY).json()
    assert answer["model"] == {"name": "small", "version": "2"}
    expected = Recommender(stage.source.fetch("2")).score("u1", BODY["candidates"])["score"]  # type: ignore[arg-type]
    np.testing.assert_allclose([s["score"] for s in answer["scores"]], expected, atol=1e-5)
    assert stage.client.get("/v1/model").json()["previous_version"] == "1"
    assert stage.metric('recsys_swaps_total{outcome="swapped"} 1.0') and stage.metric('recsys_model_info{name="small",version="2"} 1.0')
    assert not stage.metric('recsys_model_info{name="small",version="1"}')


def test_going_back_needs_one_poll_and_no_files(stage: Stage) -> None:
    first = stage.client.post("/v1/score", json=BODY).json()
    stage.source.release("2", seed=2)
    stage.watcher.poll()
    shutil.rmtree(stage.source.root / "1")
    stage.source.point_to("1")
    assert stage.watcher.poll() == "rolled_back"
    assert stage.client.post("/v1/score", json=BODY).json() == first
    assert stage.watcher.poll() == "unchanged"
    stage.source.point_to("2")
    assert stage.watcher.poll() == "rolled_back"  # and forth


def rewritten(folder: Path, change: Any) -> None:
    """Another content under a manifest that is right for it."""
    kept = folder.with_name(f"{folder.name}-before")
    folder.rename(kept)

    def write(target: Path) -> None:
        shutil.copytree(kept, target, dirs_exist_ok=True)
        (target / "manifest.json").unlink()
        change(target)

    write_artifact(folder, Manifest(kind="bundle", key="k", config_hash="c"), write)


def damage(folder: Path, how: str) -> None:
    if how == "flipped byte":
        file = folder / "ranker" / "ranker.safetensors"
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif how == "missing file":
        (folder / "items.parquet").unlink()
    elif how == "no manifest":
        (folder / "manifest.json").unlink()
    elif how == "other weights than published":
        rewritten(
            folder,
            lambda target: write_json(target / "golden.json", [{**one, "scores": [s + 1 for s in one["scores"]]} for one in read_json(target / "golden.json")]),
        )
    elif how == "other space":
        rewritten(folder, lambda target: write_json(target / "bundle.json", {**read_json(target / "bundle.json"), "spaces": {"text": "another"}}))
    elif how == "facts that are none":
        rewritten(folder, lambda target: write_json(target / "bundle.json", {}))
    elif how == "pickled index":
        rewritten(folder, lambda target: np.save(target / "index" / "index.npy", np.array([Trap(folder.parent)], dtype=object), allow_pickle=True))
    elif how == "pickle for weights":
        rewritten(folder, lambda target: (target / "ranker" / "ranker.safetensors").write_bytes(pickle.dumps(Trap(folder.parent))))


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return (Path.touch, (self.folder / "executed",))


BAD = [
    "flipped byte", "missing file", "no manifest", "other weights than published", "other space", "facts that are none", "pickled index", "pickle for weights",
]  # fmt: skip


@pytest.mark.parametrize("how", BAD)
def test_a_bad_version_leaves_the_old_one_serving(stage: Stage, how: str) -> None:
    before = stage.client.post("/v1/score", json=BODY).json()
    stage.source.release("2", seed=2)
    damage(stage.source.root / "2", how)
    assert stage.watcher.poll() == "refused"
    assert stage.client.post("/v1/score", json=BODY).json() == before
    assert stage.metric('recsys_swaps_total{outcome="refused"} 1.0')
    assert stage.watcher.poll() == "unchanged"  # it is not looked at again and again
    assert not (stage.source.root / "executed").exists()
    stage.source.release("3", seed=3)
    assert stage.watcher.poll() == "swapped" and stage.version() == "3"
    assert stage.store.last().version == "3"


def test_another_model_under_the_alias_is_refused(stage: Stage) -> None:
    stage.source.release("2", name="other")
    assert stage.watcher.poll() == "refused" and stage.version() == "1"


def test_a_model_that_gives_all_items_one_score_is_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    real = making.ranker

    def constant(seed: int = 0) -> Any:
        ranker = real(seed)
        components = torch.zeros_like(ranker._components)
        return type(ranker)(ranker.config, ranker._network, components, ranker.scorable_items().copy(), ranker._transforms, ranker.spaces)

    monkeypatch.setattr(making, "ranker", constant)
    stage.source.release("2")
    assert stage.watcher.poll() == "refused" and stage.version() == "1"


def test_a_registry_that_goes_down_and_comes_back(stage: Stage) -> None:
    stage.source.release("2", seed=2)
    stage.source.down = True
    assert stage.watcher.poll() == "unreachable" and stage.version() == "1"
    assert stage.metric("recsys_registry_up 0.0")
    stage.source.down = False
    assert stage.watcher.poll() == "swapped" and stage.version() == "2"
    assert stage.metric("recsys_registry_up 1.0")


def test_a_disk_that_is_full_while_fetching_is_tried_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.source.release("2", seed=2)
    fetch = stage.source.fetch

    def full(version: str) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stage.source, "fetch", full)
    assert stage.watcher.poll() == "failed" and stage.version() == "1"
    monkeypatch.setattr(stage.source, "fetch", fetch)
    assert stage.watcher.poll() == "swapped" and stage.version() == "2"


def test_starting_without_the_registry(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.source.down = True
    assert open_bundle(stage.source, stage.store).version == "1"
    with pytest.raises(RetryableError, match="does not answer"):
        open_bundle(stage.source, BundleStore(tmp_path / "empty"))
    with pytest.raises(RetryableError, match="does not answer"):
        open_bundle(stage.source, None)
    # What was kept is checked like everything else.
    facts = read_json(tmp_path / "kept" / "last.json")
    damage(tmp_path / "kept" / facts["folder"], "flipped byte")
    with pytest.raises(RetryableError, match="does not answer"):
        open_bundle(stage.source, stage.store)
    stage.source.down = False
    assert open_bundle(stage.source, stage.store).version == "1"

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model_source.shutil, "copytree", full)
    stage.source.release("2", seed=2)
    assert open_bundle(stage.source, stage.store).version == "2"  # a full disk does not keep it from starting
    assert stage.store.last().version == "1"


def test_no_answer_mixes_versions_and_none_fails(stage: Stage) -> None:
    """Readers under 20 swaps, 3 bad versions and new items: each answer equals that of the version which it names."""
    expected = {}
    for number in (1, 2):
        model = Recommender(stage.source.release(str(number), seed=number) and stage.source.fetch(str(number)))
        expected[str(number)] = (
            model.score("u1", BODY["candidates"])["score"].to_list(),  # type: ignore[arg-type]
            model.recommend(users=["u1"], k=3).frame.select("item_id", "score").rows(),
        )
    stage.watcher.poll()
    faults: list[object] = []
    answers = 0
    stop = threading.Event()

    def read() -> None:
        nonlocal answers
        while not stop.is_set():
            score = stage.client.post("/v1/score", json=BODY)
            best = stage.client.post("/v1/recommend", json={"user_id": "u1", "k": 3, "exclude": ["new"]})
            if score.status_code != 200 or best.status_code != 200:
                faults.append((score.text, best.text))
                continue
            for answer, want in ((score.json(), 0), (best.json(), 1)):
                version = answer["model"]["version"].partition("+")[0]
                found = [s["score"] for s in answer["scores"]] if want == 0 else [i["score"] for i in answer["items"]]
                wanted = expected[version][0] if want == 0 else [score for _, score in expected[version][1]]
                if not np.allclose(found, wanted, atol=1e-5):
                    faults.append((version, found, wanted))
            answers += 2

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    outcomes = []
    for number in range(20):
        stage.source.point_to(str(1 + number % 2))
        outcomes.append(stage.watcher.poll())
        if number % 7 == 6:
            stage.source.release(f"bad-{number}", seed=5)
            damage(stage.source.root / f"bad-{number}", "flipped byte")
            outcomes.append(stage.watcher.poll())
        if number == 10:
            assert stage.client.post("/v1/items", json={"items": [{"item_id": "new", "title": "title 3 of the film"}]}).status_code == 200
    stop.set()
    for reader in readers:
        reader.join()
    assert faults == [] and answers > 20
    assert outcomes.count("refused") == 2 and outcomes.count("swapped") + outcomes.count("rolled_back") >= 19


def test_the_live_model_alone(tmp_path: Path) -> None:
    one, two = (Recommender(making.loaded(tmp_path, seed)) for seed in (1, 2))
    live = LiveModel(one)
    told: list[str] = []
    live.on_change(lambda model: told.append(model.version))
    with pytest.raises(DataError, match="nothing to go back to"):
        live.rollback()
    pinned = live.pinned()
    live.swap(two)
    assert (live.current, live.previous) == (two, one) and pinned.version == one.version
    assert live.rollback() is one and live.previous is two
    assert told == [two.version, one.version]


def test_a_real_registry(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = default_tracking_uri(tmp_path / "root")
    source = RegistrySource("m", CHAMPION, uri)
    with pytest.raises(RetryableError, match="is not there"):
        source.version()
    assert not (tmp_path / "root").exists()  # asking made nothing
    tracker = Tracker(uri, "test")
    assert source.version() is None
    with pytest.raises(RetryableError, match="no version is named"):
        open_bundle(source, None)
    for seed in (1, 2):
        with tracker.run("r") as run:
            version = tracker.register("m", making.bundle(tmp_path / f"b{seed}", name="m", seed=seed).path, run_id=run.run_id)
        tracker.set_alias("m", CHAMPION, version)
        assert source.version() == str(seed)
        assert (source.fetch(version).name, source.fetch(version).version) == ("m", str(seed))
    tracker.set_alias("m", CHAMPION, "1")
    assert source.version() == "1"
    files = source.fetch("1").path
    assert files is not None
    damage(files, "flipped byte")
    with pytest.raises(ArtifactError, match="sha256"):
        source.fetch("1")
    (tmp_path / "root" / "mlflow.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(RetryableError, match="does not answer"):
        RegistrySource("m", CHAMPION, uri).version()
    with pytest.raises(RetryableError, match="does not answer"):
        RegistrySource("m", CHAMPION, "http://127.0.0.1:9").version()
