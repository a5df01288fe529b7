"""The cold board end to end: four kinds of cases from one training, ID-only models at zero, lists with reserved slots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipelines import cold_run
from pipelines.cli import app
from recsys.errors import ConfigError
from recsys.evaluation.run_record import read_ranks, read_run

ITEMS = 30
BASELINES = """
dataset: shop
data:
  source:
    kind: table
    interactions: {path: $RECSYS_DATA/events.csv, columns: {user_id: user, item_id: item, time: ts}}
    items: {path: $RECSYS_DATA/items.csv, columns: {item_id: item, title: title}}
models:
  sasrec: {kind: sequential, label: SASRec, settings: &tiny {encoder: {dim: 8, blocks: 1, max_length: 10}, training: {epochs: 2, batch_size: 16}, gate: false}}
"""
FUSION = """
dataset: shop
models:
  chance: {kind: chance}
  nearest: {kind: nearest, label: nearest, signals: &words {words: {kind: encoder, encoder: {model: hashed, template: "{title}"}}}, last: 1}
  fused: {kind: fused, label: fused, signals: *words, settings: {encoder: {dim: 8, blocks: 1, max_length: 10}, training: {epochs: 2, batch_size: 16}}}
cold:
  splits:
    items: {protocol: held_out_items, held_out_share: 0.3}
    targets: {protocol: held_out_targets, held_out_share: 0.3}
  models: [chance, nearest, sasrec, fused]
  nearest: nearest
  warm: sasrec
  slots:
    hybrid: {label: SASRec + nearest, known: sasrec, new: nearest}
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    events = [f"u{user},i{item},{step}" for user in range(40) for step, item in enumerate(rng.permutation(ITEMS)[:8])]
    (tmp_path / "events.csv").write_text("user,item,ts\n" + "\n".join(events) + "\n")
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"i{n},kind {n % 3} {n}\n" for n in range(ITEMS)))
    folder = tmp_path / "experiments/configs/shop"
    folder.mkdir(parents=True)
    (folder / "baselines.yaml").write_text(BASELINES)
    (folder / "fusion.yaml").write_text(FUSION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path))
    return tmp_path


def test_the_cold_board_of_a_small_shop(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def child(arguments: list[str]) -> None:
        started.append(arguments)
        cold_run.main(arguments)

    monkeypatch.setattr(cold_run, "_child", child)
    result = CliRunner().invoke(app, ["cold-board", "shop", "--run", "all", "--seeds", "1", "--threads", "1"], catch_exceptions=False)
    assert result.exit_code == 0
    folder = shop / "experiments/boards/shop/cold"
    for split in ("items", "targets"):
        records = {
            (kind, model): read_run(folder / split / kind / f"{model}-seed0.json")
            for kind in cold_run.KINDS
            for model in ("chance", "nearest", "sasrec", "fused")
        }
        assert records["cold", "sasrec"].metrics["recall@10"] == records["new", "sasrec"].metrics["recall@10"] == 0
        assert records["cold", "fused"].metrics["recall@20"] > 0 and records["warm", "sasrec"].metrics["recall@10"] > 0
        for pair in (("cold", "new"), ("warm", "known")):
            assert len({records[kind, "nearest"].cases for kind in pair}) == 1
        # Chance among 9 new items, or fewer, of which some are masked: recall at 10 is certain.
        assert records["new", "chance"].metrics["recall@10"] == 1.0
        better, tied = read_ranks(folder / split / "known" / "chance-seed0.json")
        assert (better == 0).all() and (tied <= ITEMS).all()
        assert records["cold", "fused"].spaces.keys() == {"words"}
    text = (shop / "experiments/boards/shop/cold.md").read_text()
    assert result.stdout.endswith(text) and "## targets (held\\_out\\_targets" in text
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "SASRec + nearest | 0.1" in text and str(shop) not in text
    started.clear()
    cold_run.run_cold("shop", [], [0], Console(quiet=True))
    assert started == []


def test_what_a_user_can_get_wrong(shop: Path) -> None:
    with pytest.raises(ConfigError, match="no model sasrek on the cold board of shop; it has: chance"):
        cold_run.run_cold("shop", ["sasrek"], [0], Console(quiet=True))
    fusion = shop / "experiments/configs/shop/fusion.yaml"
    for old, new, problem in (
        ("known: sasrec", "known: sasrek", "no model sasrek among"),
        ("protocol: held_out_items, held_out_share: 0.3", "protocol: leave_last_out", "items holds no items out"),
        ("models: [chance,", "models: [chances, chance,", "cold: no model chances"),
    ):
        fusion.write_text(FUSION.replace(old, new))
        with pytest.raises(ConfigError, match=problem):
            cold_run.run_cold("shop", [], [0], Console(quiet=True))
    fusion.unlink()
    with pytest.raises(ConfigError, match="shop: no cold board"):
        cold_run.run_cold("shop", [], [0], Console(quiet=True))
