"""Fused models on a board: signals of each kind, nothing embedded twice, records that state their spaces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pipelines import board_run, embed, graph
from pipelines.board_config import BoardConfig
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.lexical import random_table
from recsys.errors import ConfigError, SpaceMismatchError
from recsys.evaluation.run_record import read_run

BASELINES = """
dataset: shop
data:
  source:
    kind: table
    interactions: {path: $RECSYS_DATA/events.csv, columns: {user_id: user, item_id: item, time: ts}}
    items: {path: $RECSYS_DATA/items.csv, columns: {item_id: item, title: title}}
models:
  sasrec: {kind: sequential, label: SASRec, settings: {encoder: {dim: 8, blocks: 1}, training: {epochs: 2}}}
"""
FUSION = """
dataset: shop
models:
  fused:
    kind: fused
    label: all kinds
    signals:
      words: {kind: encoder, encoder: {model: hashed, template: "{title}"}, post: {kind: centre}}
      tfidf: {kind: made, made: {kind: tfidf, template: "{title}", dim: 4}}
      random: {kind: made, made: {kind: random, dim: 6}}
      graph: {kind: table, path: graph, space_id: SPACE}
    settings: {encoder: {dim: 8, blocks: 1, max_length: 10}, training: {epochs: 2, batch_size: 16}, transform: unit, gate: false}
  with_graph:
    kind: fused
    label: with a graph
    signals:
      words: &words {kind: encoder, encoder: {model: hashed, template: "{title}"}}
      links: {kind: graph, texts: {words: *words}, settings: {gnn: {kind: sage, layers: 1, hidden: 8}, dim: 8, link: {training: {epochs: 1}}}}
    settings: {encoder: {dim: 8, blocks: 1, max_length: 10}, training: {epochs: 1, batch_size: 16}, each: {links: {transform: whiten, components: 4}}}
trials:
  fused:
    - [settings.transform=zca, settings.components=3]
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    events = [f"u{user},i{item},{step}" for user in range(30) for step, item in enumerate(rng.permutation(20)[:7])]
    (tmp_path / "events.csv").write_text("user,item,ts\n" + "\n".join(events) + "\n")
    words = ["red", "blue", "big", "small", "old", "new"]
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"i{n},{' '.join(rng.choice(words, 3))} {n}\n" for n in range(20)))
    table = random_table(Vocabulary(sorted(f"i{n}" for n in range(20))), 5, 0)
    table.save(tmp_path / "graph")
    folder = tmp_path / "experiments/configs/shop"
    folder.mkdir(parents=True)
    (folder / "baselines.yaml").write_text(BASELINES)
    (folder / "fusion.yaml").write_text(FUSION.replace("SPACE", table.space_id))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path))
    monkeypatch.setattr(board_run, "_child", board_run.main)
    return tmp_path


def quiet() -> Console:
    return Console(quiet=True)


def test_signals_of_each_kind_are_made_once_and_stand_in_the_record(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = board_run.run_models("shop", ["fused"], [0], quiet(), threads=1)
    record = read_run(path)
    assert set(record.spaces) == {"words", "tfidf", "random", "graph"} and len(set(record.spaces.values())) == 4
    assert record.parameters > 0 and record.train_seconds > 0 and record.inference_ms_per_user > 0
    assert str(shop) not in path.read_text()

    def embedded_again(*arguments: object) -> None:
        raise AssertionError("the vectors were there")

    monkeypatch.setattr(embed, "run", embedded_again)
    assert len(board_run.run_models("shop", ["fused"], [0, 1], quiet(), threads=1)) == 2
    board_run.tune_models("shop", ["fused"], quiet(), threads=1)
    assert read_run(shop / "experiments/boards/shop/fused-seed1.json").spaces == record.spaces


def test_a_graph_is_fitted_once_on_the_boards_own_split(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = board_run.run_models("shop", ["with_graph"], [0], quiet(), threads=1)
    monkeypatch.setattr(graph, "run", None)
    paths = board_run.run_models("shop", ["with_graph"], [0, 1], quiet(), threads=1)
    first, second = (read_run(path) for path in paths)
    assert first.spaces.keys() == {"words", "links"} and first.spaces == second.spaces
    fusion = shop / "experiments/configs/shop/fusion.yaml"
    fusion.write_text(fusion.read_text().replace("texts: {words: *words}", "texts: {words: {kind: encoder, encoder: {model: hashed, template: x}}}"))
    with pytest.raises(ConfigError, match="embed:words stands for two configurations"):
        board_run.run_models("shop", ["with_graph"], [0], quiet(), threads=1)


def test_a_table_of_another_space_is_refused(shop: Path) -> None:
    random_table(Vocabulary(sorted(f"i{n}" for n in range(20))), 5, 1).save(shop / "graph")
    with pytest.raises(SpaceMismatchError, match="expected embedding space"):
        board_run.run_models("shop", ["fused"], [0], quiet(), threads=1)


def test_a_board_is_of_both_files_and_names_are_unique(shop: Path) -> None:
    assert list(BoardConfig.of_dataset("shop").models) == ["sasrec", "fused", "with_graph"]
    fusion = shop / "experiments/configs/shop/fusion.yaml"
    fusion.write_text(fusion.read_text().replace("  fused:\n    kind", "  sasrec:\n    kind", 1))
    with pytest.raises(ConfigError, match="models of sasrec stand in baselines.yaml already"):
        BoardConfig.of_dataset("shop")
    fusion.write_text(FUSION.replace("dataset: shop", "dataset: other"))
    with pytest.raises(ConfigError, match="dataset is 'other', expected 'shop'"):
        BoardConfig.of_dataset("shop")
    fusion.write_text(FUSION.replace("kind: centre", "kind: center"))
    with pytest.raises(ConfigError, match="centre"):
        BoardConfig.of_dataset("shop")
