from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import recsys
from recsys.errors import ArtifactError, ConfigError
from recsys.tracking import CHAMPION, REPLACED_TAG, ROLLED_BACK_TAG, Tracker, default_tracking_uri, flatten, metric_name, resolve
from tests.serving import making


def test_importing_recsys_loads_neither_torch_nor_mlflow() -> None:
    code = "import sys, recsys; print([m for m in ('torch', 'mlflow', 'polars', 'fastapi') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_that_mlflow_takes() -> None:
    assert metric_name("ndcg@10") == "ndcg_at_10"
    assert metric_name("a=b") == "a_b"
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


def test_the_default_registry_is_that_of_the_environment_or_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RECSYS_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert default_tracking_uri() == f"sqlite:///{tmp_path}/.recsys/mlflow.db"
    assert default_tracking_uri(tmp_path / "r") == f"sqlite:///{tmp_path}/r/mlflow.db"
    monkeypatch.setenv("RECSYS_TRACKING_URI", "http://registry")
    assert default_tracking_uri(tmp_path) == "http://registry"


def test_mistakes_in_the_uri(tmp_path: Path) -> None:
    nowhere = default_tracking_uri(tmp_path)
    for uri in ("models:/x", "models:x@y", "models:/a/b/c", "models:/x@"):
        with pytest.raises(ConfigError, match="models:/name@alias"):
            resolve(uri, nowhere)
    with pytest.raises(ConfigError, match="no registry at"):
        resolve("models:/x@champion", nowhere)
    assert not (tmp_path / "mlflow.db").exists()
    with pytest.raises(ConfigError, match="neither a folder nor"):
        recsys.load(tmp_path / "missing")


def test_a_bundle_loads_from_its_folder(tmp_path: Path) -> None:
    model = recsys.load(making.bundle(tmp_path / "b").path)
    assert len(model.recommend(users=["u1"], k=3)) == 3


def test_from_run_to_champion_and_back(tmp_path: Path) -> None:
    tracker = Tracker(default_tracking_uri(tmp_path / "root"), "test")
    bundle = making.bundle(tmp_path / "b")
    assert tracker.champion("m") is None
    with tracker.run("first") as run:
        run.log_params({"model": {"dim": 16}})
        run.log_history([{"loss": 2.0}, {"loss": 1.0}])
        run.log_metrics({"ndcg@10": 0.5})
        version = tracker.register("m", bundle.path, run_id=run.run_id, tags={"gate": "passed"})
    assert tracker.champion("m") is None
    tracker.set_alias("m", CHAMPION, version)
    champion = tracker.champion("m")
    assert champion is not None
    assert (champion.version, champion.bundle_key, champion.tags["gate"]) == ("1", bundle.key, "passed")
    assert champion.run_metrics == {"loss": 1.0, "ndcg_at_10": 0.5}

    expected = recsys.load(bundle.path).recommend(users=["u1"]).frame
    for uri in ("models:/m@champion", "models:/m/1"):
        model = recsys.load(uri, tracking_uri=tracker.uri)
        assert (model.name, model.version) == ("m", "1")
        assert model.recommend(users=["u1"]).frame.equals(expected)
    with pytest.raises(ConfigError, match=r"registered models: m \(@champion\)"):
        recsys.load("models:/m@other", tracking_uri=tracker.uri)

    found = tracker.resolve("models:/m/1")
    _check_pyfunc(found.path.parent.parent, expected["item_id"].to_list())

    weights = found.path / "ranker" / "ranker.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ArtifactError, match="sha256"):
        recsys.load("models:/m@champion", tracking_uri=tracker.uri)
    manifest = found.path / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(ArtifactError, match="not the manifest that was registered"):
        recsys.load("models:/m@champion", tracking_uri=tracker.uri)


def _check_pyfunc(folder: Path, expected: list[str]) -> None:
    import mlflow.pyfunc
    import pandas as pd

    model = mlflow.pyfunc.load_model(str(folder))
    assert model.predict(pd.DataFrame({"user_id": ["u1"]}))["item_id"].tolist() == expected


def test_promotions_remember_whom_they_replaced_and_a_rollback_goes_back(tmp_path: Path) -> None:
    tracker = Tracker(default_tracking_uri(tmp_path / "root"), "test")
    with pytest.raises(ConfigError, match="no champion in the registry"):
        tracker.rollback("m")
    for number in (1, 2, 3):
        with tracker.run("r") as run:
            run.log_files(_file(tmp_path / "note.txt", str(number)), "notes")
            version = tracker.register("m", making.bundle(tmp_path / f"b{number}").path, run_id=run.run_id, tags={"night": str(number)})
        for _ in range(2):  # again: nothing changes
            tracker.promote("m", version)
    assert [v.tags.get(REPLACED_TAG) for v in tracker.versions("m")] == [None, "1", "2"]
    found = tracker.find("m", {"night": "2"})
    assert found is not None and found.version == "2" and tracker.find("m", {"night": "9"}) is None
    assert (tracker.file_of(found, "notes/note.txt") or Path()).read_text() == "2" and tracker.file_of(found, "notes/other") is None

    assert tracker.rollback("m", "too slow") == ("3", "2")
    assert tracker.version("m", "3").tags[ROLLED_BACK_TAG].endswith("Z too slow")
    assert tracker.rollback("m") == ("2", "1")
    with pytest.raises(ConfigError, match="version 1 is the first champion"):
        tracker.rollback("m")
    tracker.promote("m", "3")
    assert tracker.version("m", "3").tags[REPLACED_TAG] == "1" and tracker.rollback("m") == ("3", "1")
    with pytest.raises(ConfigError, match="no version 7"):
        tracker.version("m", "7")


def test_a_version_whose_files_are_gone_is_not_rolled_back_to(tmp_path: Path) -> None:
    tracker = Tracker(default_tracking_uri(tmp_path / "root"), "test")
    for number in (1, 2):
        with tracker.run("r") as run:
            tracker.promote("m", tracker.register("m", making.bundle(tmp_path / f"b{number}").path, run_id=run.run_id))
    (tracker.resolve("models:/m/1").path / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        tracker.rollback("m")
    champion = tracker.champion("m")
    assert champion is not None and champion.version == "2"


def _file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
