"""The run with a graph: one more signal of the fused model and one more row on the board, warm and cold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from pipelines import board_run, graph, split
from pipelines.board_config import BoardConfig
from pipelines.board_training import imagined_of, load_board
from pipelines.config import RunConfig
from pipelines.plan import build_plan
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import read_json
from recsys.config import apply_overrides
from recsys.evaluation.run_record import read_run
from recsys.graph.leaks import assert_no_graph_leak
from recsys.graph.model import GraphModel
from recsys.graph.storage import load_graph

CONFIG = """
name: tiny-shop
data:
  source:
    kind: table
    interactions: {{path: {folder}/events.csv, columns: {{user_id: user, item_id: item, time: ts}}}}
    items: {{path: {folder}/items.csv, columns: {{item_id: id, title: name, categories: tags}}}}
embed:
  - {{name: words, model: hashed, template: "{{title}}|. {{categories}}"}}
graph:
  - build: {{text: {{neighbours: 4}}}}
    encoder: {{dim: 8, gnn: {{kind: sage, hidden: 16}}, link: {{training: {{epochs: 4, batch_size: 128, learning_rate: 0.01}}}}}}
backbone: &model
  encoder: {{dim: 16, max_length: 20}}
  training: {{epochs: 2, patience: 2}}
rank: *model
publish: {{parity_users: 20, parity_items: 20}}
runtime: {{root: {folder}/root, executor: local}}
"""


def shop(folder: Path) -> Path:
    """60 users walk through 40 items of 4 kinds."""
    rng = np.random.default_rng(0)
    rows = ["user,item,ts"]
    for user in range(60):
        for step in range(12):
            rows.append(f"u{user},i{rng.integers(0, 10) * 4 + (user % 4 if rng.random() < 0.9 else rng.integers(0, 4))},{step * 1000 + user}")
    (folder / "events.csv").write_text("\n".join(rows) + "\n")
    kinds = ["red wine", "garden tools", "running shoes", "jazz records"]
    (folder / "items.csv").write_text("id,name,tags\n" + "".join(f"i{i},{kinds[i % 4]} number {i},{kinds[i % 4].split()[1]}\n" for i in range(40)))
    config = folder / "shop.yaml"
    config.write_text(CONFIG.format(folder=folder))
    return config


def recsys(*arguments: object) -> str:
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", *map(str, arguments)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "result.json").write_text(recsys("evaluate", shop(folder), "--json"))
    return folder


@pytest.mark.slow
def test_the_graph_is_a_signal_and_a_row(finished: Path) -> None:
    result = read_json(finished / "result.json")
    assert {"graph:graph:warm", "graph:graph:cold"} <= set(result["ran"])
    by_name = {row["name"]: row for row in result["board"]}
    assert by_name["fused"]["label"] == "fused (ID + words + graph)"
    # Of a kind there are ten items, and the cold ones are known by their words.
    assert by_name["graph-graph"]["recall@10"] > 0.4 > by_name["ease"]["cold_only_recall@10"]
    assert by_name["graph-graph"]["cold_recall@10"] is not None
    ranker = Artifact.open(Path(result["artifacts"]["rank:warm"]))
    of_graph = Artifact.open(Path(result["artifacts"]["graph:graph:warm"]))
    assert ranker.manifest.metadata["spaces"]["graph"] == of_graph.manifest.metadata["space_id"]


@pytest.mark.slow
def test_what_the_stage_leaves(finished: Path) -> None:
    artifacts = read_json(finished / "result.json")["artifacts"]
    for board in ("warm", "cold"):
        artifact = Artifact.open(Path(artifacts[f"graph:graph:{board}"]))
        data_split = split.load(Artifact.open(Path(artifacts[f"split:{board}"])))
        data, table = load_graph(artifact.path / "graph"), graph.load(artifact)
        assert_no_graph_leak(data_split, data)
        model = GraphModel.load(artifact.path / "model")
        np.testing.assert_array_equal(table.values, model.items())
        assert table.space.split_hash == data_split.digest and table.vocabulary.ids == data_split.items.ids
        held_out = np.flatnonzero(data_split.held_out)
        assert table.values[held_out].any(axis=1).all() and len(held_out) == (4 if board == "cold" else 0)


@pytest.mark.slow
def test_a_second_run_is_free_and_another_seed_is_not(finished: Path) -> None:
    statuses = json.loads(recsys("plan", finished / "shop.yaml", "--set", "graph.0.encoder.gnn.layers=1", "--json"))
    assert [s["step"] for s in statuses if not s["cached"]] == ["graph:graph:warm", "rank:warm", "graph:graph:cold", "rank:cold", "evaluate", "publish"]


BOARD = """
dataset: shop
data:
  source:
    kind: table
    interactions: {path: $RECSYS_DATA/events.csv, columns: {user_id: user, item_id: item, time: ts}}
    items: {path: $RECSYS_DATA/items.csv, columns: {item_id: id, title: name, categories: tags}}
split: {protocol: held_out_items, held_out_share: 0.1}
models:
  graph:
    kind: graph
    label: SAGE over words
    signals: {words: {kind: encoder, encoder: {model: hashed, template: "{title}"}}}
    settings: &settings {dim: 8, gnn: {kind: sage, hidden: 16}, link: {training: {epochs: 3, batch_size: 128, learning_rate: 0.01}}}
  ids:
    kind: graph
    label: LightGCN over the graph
    settings: {<<: *settings, features: ids, users: true, gnn: {kind: lightgcn}}
trials:
  graph:
    - [settings.gnn.layers=1]
"""


def test_a_graph_on_a_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop(tmp_path)
    folder = tmp_path / "experiments/configs/shop"
    folder.mkdir(parents=True)
    (folder / "baselines.yaml").write_text(BOARD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path))
    started = []

    def child(arguments: list[str]) -> None:
        started.append(arguments[0])
        board_run.main(arguments)

    monkeypatch.setattr(board_run, "_child", child)
    records = {path.name: read_run(path) for path in board_run.run_models("shop", [], [0, 1], Console(quiet=True), threads=1)}
    assert sorted(records) == ["graph-seed0.json", "graph-seed1.json", "ids-seed0.json", "ids-seed1.json"]
    for record in records.values():
        assert record.epochs == 3 and record.parameters > 0 and "validation" in record.curve[-1]
    assert records["graph-seed0.json"].curve != records["graph-seed1.json"].curve
    # Ten items of a kind, of which a user met most.
    assert records["graph-seed0.json"].metrics["recall@10"] > 0.4
    started.clear()
    board_run.run_models("shop", [], [0, 1], Console(quiet=True), threads=1)
    assert started == []
    (trial,) = json.loads(board_run.tune_models("shop", [], Console(quiet=True), threads=1).read_text())
    assert trial["config"]["model"]["settings"]["gnn"]["layers"] == 1


IMAGINED = """
dataset: shop
data:
  source:
    kind: table
    interactions: {path: $RECSYS_DATA/events.csv, columns: {user_id: user, item_id: item, time: ts}}
    items: {path: $RECSYS_DATA/items.csv, columns: {item_id: id, title: name, categories: tags}}
split: {protocol: held_out_items, held_out_share: 0.1}
models:
  imagined:
    kind: graph
    label: SAGE over words, with what a language model imagined
    signals: {words: &words {kind: encoder, encoder: {model: hashed, template: "{title}"}}}
    settings: {dim: 8, gnn: {kind: sage, hidden: 16}, link: {training: {epochs: 2, batch_size: 128, learning_rate: 0.01}}}
    neighbours:
      task: {domain: shopping, noun: item, form: the name of a product, template: "{title}", per_item: 1}
      writer: {kind: imported, name: a larger model, file: $RECSYS_DATA/answers.jsonl}
      encoder: {model: hashed, template: "{title}"}
      links: {minimum: 0.1, real: 3}
      most: 0
"""


def test_imagined_neighbours_are_written_for_thin_items_alone_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop(tmp_path)
    # Held out: four items; two of them have a usable answer.
    folder = tmp_path / "experiments/configs/shop"
    folder.mkdir(parents=True)
    (folder / "baselines.yaml").write_text(IMAGINED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path))
    (tmp_path / "answers.jsonl").write_text("")
    board = BoardConfig.of_dataset("shop")
    loaded = load_board(board)
    cold = np.flatnonzero(loaded.split.held_out).tolist()
    task, rows = board.model("imagined").neighbours.task, []  # type: ignore[union-attr]
    for item in cold[:2]:
        name = loaded.catalog.texts("{title}")[item]
        (prompt,) = task.prompts(name)
        rows.append({"key": prompt.digest, "text": f"{name}, and beside it one more of {name} that is sold in the same shops everywhere."})
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    board = BoardConfig.of_dataset("shop")
    edges = imagined_of(board, board.model("imagined"), "imagined")
    assert edges is not None and set(cold[:2]) <= set(edges.sources.tolist()) and not set(cold[2:]) & set(edges.sources.tolist())
    (artifact,) = (Artifact.open(path) for path in (tmp_path / ".recsys/boards/signals/artifacts/neighbours").iterdir())
    assert (artifact.manifest.metadata["thin_items"], artifact.manifest.metadata["texts"]) == (4, 2)
    assert sum(artifact.manifest.metadata["missing"].values()) == 2
    monkeypatch.setattr(board_run, "_child", board_run.main)
    (record,) = (read_run(path) for path in board_run.run_models("shop", ["imagined"], [0], Console(quiet=True), threads=1))
    assert record.epochs == 2
    assert len(list((tmp_path / ".recsys/boards/signals/artifacts/neighbours").iterdir())) == 1


def test_without_a_graph_there_is_no_step_of_it(tmp_path: Path) -> None:
    document = yaml.safe_load(shop(tmp_path).read_text())
    with_graph = build_plan(RunConfig.parse(document), None)  # type: ignore[arg-type]
    without = build_plan(RunConfig.parse(apply_overrides(document, ["graph=[]"])), None)  # type: ignore[arg-type]
    names = [step.name for step in without]
    assert [step.name for step in with_graph if step.stage != "graph"] == names
    ranks = {step.name: dict(step.inputs) for step in without if step.stage == "rank"}
    assert ranks == {f"rank:{board}": {"split": f"split:{board}", "table:words": "embed:words"} for board in ("warm", "cold")}
