"""`recsys fine-tune` and `recsys embedding-board` on a small made-up shop: cached, killed and resumed, found by each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from pipelines import fine_tune, split
from pipelines.cli import app
from pipelines.embedding_board import plan_of, run_board
from pipelines.embedding_rows import EmbeddingBoardConfig
from pipelines.fine_tune import FineTuneConfig, run_steps
from pipelines.item_tables import post_processed
from pipelines.ledger import Ledger
from pipelines.progress import SilentReporter
from recsys.artifacts.atomic import read_json
from recsys.embeddings.adapter import Adapter
from recsys.embeddings.content import of_texts
from recsys.embeddings.table import EmbeddingTable
from recsys.embeddings.text import TextEncoder
from recsys.errors import ConfigError
from recsys.testing.language_models import tiny_model

KINDS = ("red wine", "garden tool", "running shoe", "jazz record")
TEMPLATE = "{title}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 users, each of whom keeps to one of four kinds of items; texts name the kind in a word of its own for each item."""
    folder = tmp_path_factory.mktemp("shop")
    generator = np.random.default_rng(0)
    events = [(f"u{u}", f"i{generator.integers(0, 10) * 4 + u % 4}", t) for u in range(60) for t in range(9)]
    pl.DataFrame(events, schema=["user", "item", "ts"], orient="row").write_csv(folder / "events.csv")
    pl.DataFrame({"id": [f"i{k}" for k in range(40)], "name": [f"{KINDS[k % 4]} {k}" for k in range(40)]}).write_csv(folder / "items.csv")
    tiny_model(folder / "model", "bert", wrap=True)
    return folder


def source(shop: Path) -> dict:
    return {
        "source": {
            "kind": "table",
            "interactions": {"path": str(shop / "events.csv"), "columns": {"user_id": "user", "item_id": "item", "time": "ts"}},
            "items": {"path": str(shop / "items.csv"), "columns": {"item_id": "id", "title": "name"}},
        }
    }


def tuning(shop: Path, **training: object) -> dict:
    return {
        "fine_tuning": {
            "encoder": {"name": "tiny", "model": str(shop / "model"), "template": TEMPLATE, "max_length": 32, "dtype": "float32"},
            "layers": 1,
            "tuning": {"kind": "lora", "rank": 4, "alpha": 8},
            "steps": 4,
            "loss": {"temperature": 0.1, "hard_negatives": {"per_anchor": 1, "depth": 5}},
            "training": {"epochs": 3, "patience": 3, "batch_size": 16, "learning_rate": 0.005, **training},
        },
        "validation_cases": 30,
    }


def config_of(shop: Path, root: Path, **changes: object) -> FineTuneConfig:
    split = {"protocol": "held_out_items", "held_out_share": 0.2}
    return FineTuneConfig.parse({"data": source(shop), "split": split, **tuning(shop), "root": str(root), **changes})


def test_an_adapter_comes_out_and_is_not_made_twice(shop: Path, tmp_path: Path) -> None:
    config = config_of(shop, tmp_path)
    artifact, ran = run_steps(config, SilentReporter())
    assert ran and not run_steps(config, SilentReporter())[1]
    facts = artifact.manifest.metadata
    figures = facts["figures"]
    assert figures["epochs"] == 3 and figures["lower_items"] == 40 and figures["validation"] > 0 and figures["pairs_per_second"] > 0
    history = read_json(artifact.file("history.json"))
    assert history[-1]["loss"] < history[0]["loss"]
    encoder = config.fine_tuning.encoder.model_copy(update={"adapter": artifact.path})
    table = EmbeddingTable.load(artifact.path / fine_tune.TABLE)
    assert encoder.space() == table.space and Adapter.open(artifact.path).split_hash == facts["split_hash"]
    vectors = TextEncoder.load(encoder).encode(of_texts(f"{KINDS[k % 4]} {k}" for k in range(40)))
    assert (vectors * table.values).sum(1).min() > 0.9999


def test_a_killed_training_resumes_to_the_same_adapter(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = run_steps(config_of(shop, tmp_path / "whole"), SilentReporter())
    original = fine_tune.fine_tune

    def impatient(*arguments: object, **options: object) -> object:
        told = options["progress"]

        def progress(done: int, total: int, numbers: dict) -> None:
            told(done, total, numbers)
            if done == 2:
                raise KeyboardInterrupt

        return original(*arguments, **options | {"progress": progress, "checkpoint_seconds": 0.0})

    monkeypatch.setattr(fine_tune, "fine_tune", impatient)
    with pytest.raises(KeyboardInterrupt):
        run_steps(config_of(shop, tmp_path / "killed"), SilentReporter())
    monkeypatch.setattr(fine_tune, "fine_tune", original)
    resumed, ran = run_steps(config_of(shop, tmp_path / "killed"), SilentReporter())
    assert ran and resumed.key == whole.key
    assert resumed.manifest.files == whole.manifest.files


def test_the_command_prints_and_tracks(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml
    from mlflow import MlflowClient

    monkeypatch.delenv("RECSYS_TRACKING_URI", raising=False)
    path = tmp_path / "fine_tune.yaml"
    path.write_text(yaml.safe_dump({"data": source(shop), **tuning(shop, epochs=1), "root": str(tmp_path / "root")}))
    done = CliRunner().invoke(app, ["fine-tune", str(path), "--json", "--set", "seed=5"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert Path(told["adapter"]).is_dir() and told["epochs"] == 1
    client = MlflowClient(f"sqlite:///{tmp_path / 'root' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("fine-tuning").experiment_id])
    assert run.data.metrics["train/loss"] > 0 and run.data.params["seed"] == "5" and run.data.tags["split_hash"] == told["split_hash"]


def board_of(shop: Path) -> EmbeddingBoardConfig:
    rows = {
        "random": {"kind": "made", "label": "random", "made": {"kind": "random", "dim": 16}, "seeds": [0, 1]},
        "words": {"kind": "made", "label": "TF-IDF", "made": {"kind": "tfidf", "dim": 3, "template": TEMPLATE}},
        "tiny": {
            "kind": "encoder",
            "label": "tiny",
            "encoder": {"model": str(shop / "model"), "template": TEMPLATE, "max_length": 32, "dtype": "float32"},
            "vary": {"pooling": ["mean", "last"], "layer": [-1, 1]},
            "posts": ["none", "centre"],
        },
        "tuned": {"kind": "fine_tuned", "label": "tuned", "adapter": tuning(shop), "seeds": [0, 1], "posts": ["none", "centre"]},
    }
    values = {"dataset": "shop", "data": source(shop), "split": {"protocol": "held_out_items", "held_out_share": 0.2}, "posts": {"centre": {"kind": "centre"}}}
    return EmbeddingBoardConfig.parse({**values, "against": "tiny-mean-last_layer", "rows": rows})


def test_the_lines_of_a_board(shop: Path) -> None:
    board = board_of(shop)
    assert [entry.name for entry in board.entries()] == [
        "random", "words",
        "tiny-mean-last_layer", "tiny-mean-last_layer-centre", "tiny-mean-layer_1", "tiny-mean-layer_1-centre",
        "tiny-last-last_layer", "tiny-last-last_layer-centre", "tiny-last-layer_1", "tiny-last-layer_1-centre",
        "tuned", "tuned-centre",
    ]  # fmt: skip
    plan = plan_of(board)
    assert len([step for step in plan.steps if step.stage == "embed"]) == 4, "post-processing shares the table"
    assert len([step for step in plan.steps if step.stage == "adapter"]) == 2, "one a seed"
    assert plan.needed(["random"]) == {"ingest", "split:held_out_items", "measure:random-seed0", "measure:random-seed1"}
    bad = board.model_dump(mode="json")
    with pytest.raises(ConfigError, match="no line 'nobody'"):
        EmbeddingBoardConfig.parse({**bad, "against": "nobody"})
    with pytest.raises(ConfigError, match="no post-processing zca; there are: none, centre"):
        EmbeddingBoardConfig.parse({**bad, "rows": {**bad["rows"], "words": {**bad["rows"]["words"], "posts": ["zca"]}}})


def test_a_board_is_filled_line_by_line_and_nothing_is_computed_twice(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board, root, folder = board_of(shop), tmp_path / "root", tmp_path / "shop"
    with pytest.raises(ConfigError, match="not finished; run: recsys embedding-board shop"):
        run_board(board, SilentReporter(), folder, root=root, finished_only=True)
    with pytest.raises(ConfigError, match="no line is called nothing"):
        run_board(board, SilentReporter(), folder, root=root, lines=["nothing"])
    first = run_board(board, SilentReporter(), folder, root=root, lines=["words", "random"])
    assert [line["name"] for line in first["lines"]] == ["random", "words", "tiny-mean-last_layer"], "with what all are compared with"
    # Trained by the other command, found by the board.
    trained, _ = run_steps(config_of(shop, root, seed=1), SilentReporter())
    ran: list[str] = []
    run_step = Ledger.run
    monkeypatch.setattr(Ledger, "run", lambda self, status, *rest: ran.append(status.step.name) or run_step(self, status, *rest))
    document = run_board(board, SilentReporter(), folder, root=root)
    assert len(document["lines"]) == 12 and read_json(folder / "embeddings.json") == document
    assert len([name for name in ran if name.startswith("adapter")]) == 1
    assert not any(name in ran for name in ("ingest", "measure:words", "measure:random-seed0", "embed:tiny_mean_last_layer"))
    assert run_board(board, SilentReporter(), folder, root=root) == document and len(ran) == len(set(ran))
    by_name = {line["name"]: line for line in document["lines"]}
    assert by_name["tuned"]["seeds"] == 2 and len(set(by_name["tuned"]["space_ids"])) == 2
    assert by_name["tuned"]["metrics"]["cold recall@10"]["mean"] == pytest.approx(np.mean(by_name["tuned"]["metrics"]["cold recall@10"]["seeds"]))
    words = by_name["words"]["metrics"]
    assert words["cold_only recall@10"]["mean"] > by_name["random"]["metrics"]["cold_only recall@10"]["mean"] - 0.05
    assert "# Embeddings of shop" in (folder / "embeddings.md").read_text()
    space = EmbeddingTable.load(trained.path / fine_tune.TABLE).space_id
    assert space in by_name["tuned"]["space_ids"]


def test_post_processing_leaves_items_without_a_vector_alone(shop: Path, tmp_path: Path) -> None:
    from recsys.data.vocabulary import Vocabulary
    from recsys.embeddings.hashed import HashedEncoder
    from recsys.embeddings.post import PostConfig

    board, root = board_of(shop), tmp_path / "root"
    run_board(board, SilentReporter(), tmp_path / "shop", root=root, lines=["random"])
    status = next(s for s in Ledger(root).survey(plan_of(board).steps) if s.step.stage == "split")
    data_split = split.load(Ledger(root).open(status))
    values = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    values[7] = 0.0
    table = EmbeddingTable(values, Vocabulary(data_split.items.ids), HashedEncoder(4).space)
    found = post_processed(PostConfig(kind="centre"), table, data_split)
    assert not found.values[7].any() and found.values[[6, 8]].any(1).all() and found.space.split_hash == data_split.digest


def test_boards_that_exist_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match="boards of embeddings exist for: none"):
        EmbeddingBoardConfig.of_dataset("nothing", tmp_path)
    for path in sorted(Path("experiments/configs").glob("*/embeddings.yaml")):
        assert EmbeddingBoardConfig.of_dataset(path.parent.name).entries()
    for path in sorted(Path("experiments/configs").glob("*/fine_tune*.yaml")):
        assert FineTuneConfig.of_file(path).dataset == path.parent.name
