"""The whole run on a small made-up shop: every stage for real, killed and resumed, cached, corrupted, queried."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import read_json
from recsys.graph.tape_prompt import ExplainTask

CONFIG = """
name: tiny-shop
data:
  source:
    kind: table
    interactions: {{path: {folder}/events.csv, columns: {{user_id: user, item_id: item, time: ts}}}}
    items: {{path: {folder}/items.csv, columns: {{item_id: id, title: name, categories: tags}}}}
embed:
  - {{name: words, model: hashed, template: "{{title}}|. {{categories}}"}}
backbone: &model
  encoder: {{dim: 16, max_length: 20}}
  training: {{epochs: {epochs}, patience: {epochs}}}
rank: *model
publish: {{parity_users: 20, parity_items: 20, gate: {{latency_ms: 1000}}}}
runtime: {{root: {folder}/root, executor: local}}
"""


def shop(folder: Path, epochs: int = 3) -> Path:
    """60 users walk through 40 items of 4 kinds; one event row is broken."""
    rng = np.random.default_rng(0)
    rows = ["user,item,ts"]
    for user in range(60):
        kind = user % 4
        for step in range(12):
            item = rng.integers(0, 10) * 4 + (kind if rng.random() < 0.9 else rng.integers(0, 4))
            rows.append(f"u{user},i{item},{step * 1000 + user}")
    rows.append("u1,no-such-item,5")
    (folder / "events.csv").write_text("\n".join(rows) + "\n")
    kinds = ["red wine", "garden tools", "running shoes", "jazz records"]
    (folder / "items.csv").write_text("id,name,tags\n" + "".join(f"i{i},{kinds[i % 4]} number {i},{kinds[i % 4].split()[1]}\n" for i in range(40)))
    config = folder / "shop.yaml"
    config.write_text(CONFIG.format(folder=folder, epochs=epochs))
    return config


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]


def recsys(*arguments: object, code: int = 0) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    result = json.loads(recsys("run", shop(folder), "--json"))
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_the_run_reports_what_it_did(finished: Path) -> None:
    result = read_json(finished / "result.json")
    assert len(result["ran"]) == 10
    assert result["model"]["alias"] == "champion"
    assert result["model"]["parity_max_difference"] < 1e-5
    by_name = {row["name"]: row for row in result["board"]}
    assert by_name["sasrec"]["cold_recall@10"] == by_name["ease"]["cold_recall@10"] == 0.0
    ingest = Artifact.open(Path(result["artifacts"]["ingest"]))
    assert ingest.manifest.metadata["quarantine"] == {"events.csv: unknown item": 1}
    html = Path(result["report"]).read_text(encoding="utf-8")
    assert "unknown item" in html and "http://" not in html.replace("http://www.w3.org", "")


def test_a_second_run_runs_nothing(finished: Path) -> None:
    assert json.loads(recsys("run", finished / "shop.yaml", "--json"))["ran"] == []
    assert all(step["cached"] for step in json.loads(recsys("plan", finished / "shop.yaml", "--json")))


def test_a_changed_value_runs_only_what_depends_on_it(finished: Path) -> None:
    statuses = json.loads(recsys("plan", finished / "shop.yaml", "--set", "rank.training.epochs=4", "--json"))
    assert [s["step"] for s in statuses if not s["cached"]] == ["rank:warm", "rank:cold", "evaluate", "publish"]


def test_recommend_and_score_from_the_command_line(finished: Path) -> None:
    where = ("--model", "models:/tiny-shop@champion", "--root", finished / "root", "--json")
    best = json.loads(recsys("recommend", "--user", "u1", "-k", 3, *where))
    assert [row["rank"] for row in best] == [1, 2, 3]
    scores = json.loads(recsys("score", "--history", "i1,i5", "--items", "i9,nothing", *where))
    assert scores[0]["score"] is not None
    assert scores[1]["score"] is None and scores[1]["reason"]
    assert "unknown user" in recsys("recommend", "--user", "nobody", *where, code=65)


def test_three_lines_of_python(finished: Path) -> None:
    import recsys as library

    model = library.load("models:/tiny-shop@champion", tracking_uri=f"sqlite:///{finished / 'root' / 'mlflow.db'}")
    assert len(model.recommend(users=["u1"], k=10).frame) == 10
    model.add_items([{"item_id": "new", "title": "red wine number 99", "categories": ["wine"]}])
    assert np.isfinite(model.score("u0", ["new"])["score"][0])
    assert "new" in {row["item_id"] for row in model.similar("i0", k=40).to_dicts()}


def test_reasons_of_a_language_model_are_published_with_the_model(finished: Path) -> None:
    import recsys as library

    task = ExplainTask(role="You know shops.", noun="item", question="Who would buy it?", labels=("cooks", "others"), top=1, max_chars=200)
    texts = [f"red wine number {4 * i}" for i in range(10)]
    asked = {text: task.ask(text) for text in texts}
    lines = [{"user": p.user, "system": p.system, "text": f"Labels: cooks\nExplanation: For those who like {text}."} for text, p in asked.items()]
    (finished / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    writer = {"kind": "imported", "file": f"{finished}/answers.jsonl", "name": "a person"}
    explain = {"task": task.model_dump(mode="json"), "template": "{title}", "writer": writer}
    (finished / "told.yaml").write_text((finished / "shop.yaml").read_text() + f"explain: {json.dumps(explain)}\n")
    ran = json.loads(recsys("run", finished / "told.yaml", "--json"))["ran"]
    assert ran == ["explain", "publish"]
    told = library.load("models:/tiny-shop@champion", tracking_uri=f"sqlite:///{finished / 'root' / 'mlflow.db'}").bundle.explanations
    # Items whose answer is missing have no reason; none is made up.
    assert told == {f"i{4 * i}": f"For those who like red wine number {4 * i}." for i in range(10)}


def test_mistakes_get_an_exit_code_and_one_line(finished: Path, tmp_path: Path) -> None:
    config = finished / "shop.yaml"
    assert "did you mean 'rank'" in recsys("plan", config, "--set", "rnak.gate=1", code=64)
    assert "no such config file" in recsys("run", tmp_path / "none.yaml", code=64)
    assert "no such file" in recsys("run", config, "--set", f"data.source.items.path={tmp_path}/none.csv", code=65)
    (tmp_path / "bad.csv").write_bytes(b"user,item,ts\nu,\xff,1\n")
    assert "not UTF-8 at row 1" in recsys("ingest", config, "--set", f"data.source.interactions.path={tmp_path}/bad.csv", code=65)


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    config = shop(tmp_path)
    result = json.loads(recsys("split", config, "--json"))
    file = Path(result["artifacts"]["ingest"]) / "items.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert "sha256 differs" in recsys("split", config, code=1)


@pytest.mark.parametrize("stage", ["rank", "embed"])
def test_kill_and_resume_ends_in_the_same_artifact(finished: Path, tmp_path: Path, stage: str) -> None:
    """SIGKILL in the middle of a stage, then the same command again: the weights equal those of an undisturbed run."""
    config = shop(tmp_path)
    process = subprocess.Popen(command(stage, config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    scratch = tmp_path / "root" / "scratch"
    deadline = time.monotonic() + 120
    while not list(scratch.glob(f"{stage}-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = json.loads(recsys(stage, config, "--json"))
    for name, path in resumed["artifacts"].items():
        undisturbed = Artifact.open(Path(read_json(finished / "result.json")["artifacts"][name]))
        mine = Artifact.open(Path(path))
        weights = {file: sha for file, sha in mine.manifest.files.items() if file.endswith((".safetensors", ".npy"))}
        assert weights == {file: undisturbed.manifest.files[file] for file in weights}, name
