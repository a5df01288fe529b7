"""`recsys embed`: the plan, the run, what it tracks, and trying again what was refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.ledger import Ledger
from pipelines.run import forget_refused
from recsys.errors import ConfigError

CONFIG = """
name: shop
data:
  source:
    kind: table
    interactions: {{path: {folder}/events.csv, columns: {{user_id: user, item_id: item, time: ts}}}}
    items: {{path: {folder}/items.csv, columns: {{item_id: id, title: name}}}}
embed:
  - {{name: words, model: hashed, template: "{{title}}"}}
  - {{name: shouted, model: hashed, template: "{{title}}!"}}
limits: {{max_text_bytes: 100}}
runtime: {{root: {folder}/root, executor: local}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "events.csv").write_text("user,item,ts\n" + "".join(f"u{i % 5},i{i % 20},{i}\n" for i in range(60)))
    write_items(tmp_path, [f"film {i}" for i in range(20)])
    (tmp_path / "shop.yaml").write_text(CONFIG.format(folder=tmp_path))
    return tmp_path / "shop.yaml"


def write_items(folder: Path, names: list[str]) -> None:
    (folder / "items.csv").write_text("id,name\n" + "".join(f"i{i},{name}\n" for i, name in enumerate(names)))


def recsys(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_plan_then_run_then_plan(config: Path) -> None:
    write_items(config.parent, [f"film {i}" for i in range(17)] + ["film 0", "", "x" * 101])
    words, shouted = recsys("embed", config, "--plan")
    assert (words["name"], words["items"], words["new"], words["contents"], words["cached"], words["quarantined"]) == ("words", 20, 18, 17, 0, 2)
    assert words["time"] == "unknown until the first run" and words["cache_bytes"] == 17 * (32 + 256) and words["table_bytes"] == 20 * 256
    assert not (config.parent / "root" / "artifacts" / "embed").exists() and shouted["new"] == 18
    result = recsys("embed", config)
    facts = result["tables"]["embed:words"]
    assert (facts["computed"], facts["items_without_vector"], facts["quarantine"]) == (17, 2, {"empty": 1, "text too long": 1})
    with Path(facts["quarantine_file"]).open(newline="") as file:
        assert [(row["item_id"], row["part"], row["reason"].partition(":")[0]) for row in csv.DictReader(file)] == [
            ("i18", "item", "empty"),
            ("i19", "item", "text too long"),
        ]
    words, _ = recsys("embed", config, "--plan")
    assert (words["new"], words["cached"], words["time"]) == (0, 18, "none")
    write_items(config.parent, [f"film {i}" for i in range(15)] + [f"new {i}" for i in range(5)])
    words, _ = recsys("embed", config, "--plan")
    assert (words["new"], words["cached"], words["quarantined"]) == (5, 15, 0) and words["time"].startswith("about 0 s")
    assert recsys("embed", config)["tables"]["embed:words"]["computed"] == 5


def test_each_run_that_computes_is_tracked_once(config: Path) -> None:
    from mlflow import MlflowClient

    recsys("embed", config)
    recsys("embed", config)
    client = MlflowClient(tracking_uri=f"sqlite:///{config.parent / 'root' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("embedding")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["embed/words/computed"] == 20 and run.data.metrics["embed/shouted/items_per_second"] > 0
    assert run.data.params["runtime.executor"] == "local"


def test_refused_items_are_tried_again_with_all_that_was_made_of_them(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.config import RunConfig
    from pipelines.plan import build_plan
    from pipelines.services import make_services
    from recsys.embeddings.hashed import HashedEncoder
    from recsys.errors import DataError

    encode = HashedEncoder.encode

    def picky(self: HashedEncoder, contents: Any) -> Any:
        if any(content.text == "film 7" for content in contents):
            raise DataError("not that one")
        return encode(self, contents)

    monkeypatch.setattr(HashedEncoder, "encode", picky)
    first = recsys("embed", config)
    assert first["tables"]["embed:words"]["quarantine"] == {"refused by the encoder": 1} and first["tables"]["embed:shouted"]["quarantined"] == 0
    monkeypatch.setattr(HashedEncoder, "encode", encode)
    assert recsys("embed", config)["ran"] == []
    ledger, loaded = Ledger(config.parent / "root"), RunConfig.read(config)
    plan = build_plan(loaded, make_services(config.parent / "root"))
    for status in ledger.survey(plan):  # as if everything had run
        ledger.path_of(status.step, status.key).mkdir(parents=True, exist_ok=True)
        (ledger.path_of(status.step, status.key) / "manifest.json").touch()
    monkeypatch.setattr(Ledger, "open", lambda self, status: _opened(status, quarantined=int(status.step.name == "embed:words")))
    forget_refused(ledger, plan)
    left = {status.step.name for status in ledger.survey(plan) if status.cached}
    assert left == {"ingest", "split:warm", "split:cold", "embed:shouted", "backbone:warm", "backbone:cold"}
    monkeypatch.undo()
    again = recsys("embed", config, "--retry-quarantined")
    assert again["tables"]["embed:words"]["computed"] == 1 and again["tables"]["embed:words"]["quarantined"] == 0


def _opened(status: Any, quarantined: int) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(manifest=SimpleNamespace(metadata={"quarantined": quarantined}))


def test_mistakes(config: Path) -> None:
    for options, message in (
        (["--executor", "slurm"], "known: local, ray"),
        (["--executor", "local", "--ray-address", "x:1"], "--ray-address belongs to"),
        (["--set", "embed=[]"], "nothing to compute"),
    ):
        with pytest.raises(ConfigError, match=message):
            CliRunner().invoke(app, ["embed", str(config), *options], catch_exceptions=False)
