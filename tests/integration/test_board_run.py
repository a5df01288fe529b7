"""Filling a board: records, repetition to the digit, resumption, trials that never read the test cases."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from pipelines import board_run, board_training, run_records
from pipelines.board_config import BoardConfig
from recsys.data import split as split_module
from recsys.data.interactions import Interactions
from recsys.data.sequences import Sequences
from recsys.data.split import Split, SplitConfig
from recsys.errors import ConfigError, DataError, LeakError, RetryableError
from recsys.evaluation.metrics import expected_ndcg
from recsys.evaluation.run_record import read_ranks, read_run

CONFIG = """
dataset: shop
data:
  source:
    kind: table
    interactions: {path: $RECSYS_DATA/events.csv, columns: {user_id: user, item_id: item, time: ts}}
models:
  popularity: {kind: popularity}
  ease: {kind: ease, settings: {regularisation: 10}}
  lightgcn:
    kind: lightgcn
    settings: {dim: 8, layers: 2, training: {epochs: 3, batch_size: 512}}
  sasrec:
    kind: sequential
    label: SASRec
    settings:
      encoder: {dim: 8, blocks: 1, max_length: 10}
      training: {epochs: 3, batch_size: 16}
      projection: false
trials:
  sasrec:
    - [settings.encoder.dropout=0.5]
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    rows = [f"u{user},i{item},{step}" for user in range(40) for step, item in enumerate(rng.permutation(30)[:8])]
    (tmp_path / "events.csv").write_text("user,item,ts\n" + "\n".join(rows) + "\n")
    folder = tmp_path / "experiments/configs/shop"
    folder.mkdir(parents=True)
    (folder / "baselines.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path))
    return tmp_path


def in_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Children run in this process: the same code without the start-up. Returns the list of what was started."""
    started: list[list[str]] = []

    def child(arguments: list[str]) -> None:
        started.append(arguments)
        board_run.main(arguments)

    monkeypatch.setattr(board_run, "_child", child)
    return started


def quiet() -> Console:
    return Console(quiet=True)


def test_a_board_is_filled_once_and_repeats_to_the_digit(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = in_process(monkeypatch)
    paths = board_run.run_models("shop", [], [0, 1], quiet(), threads=1)
    trained = [f"{model}-seed{seed}.json" for model in ("lightgcn", "sasrec") for seed in (0, 1)]
    assert [p.name for p in paths] == ["popularity-seed0.json", "ease-seed0.json", *trained]
    first = {path.name: read_run(path) for path in paths}
    for path in paths:
        record = read_run(path)
        better, tied = read_ranks(path)
        assert record.cases == 40 == len(better)
        assert record.metrics["ndcg@10"] == pytest.approx(expected_ndcg(better, tied, 10).mean(), abs=1e-12)
        assert str(shop) not in path.read_text(), "no machine paths on a board"
    assert first["sasrec-seed0.json"].metrics != first["sasrec-seed1.json"].metrics
    assert first["sasrec-seed0.json"].split_hash == first["ease-seed0.json"].split_hash

    started.clear()
    board_run.run_models("shop", [], [0, 1], quiet(), threads=1)
    assert started == []

    # From nothing again: one seed gives one result.
    for folder in (shop / ".recsys").rglob("*.safetensors"):
        folder.unlink()
    for facts in (shop / ".recsys").rglob("checkpoint.json"):
        facts.unlink()
    board_run.run_models("shop", ["sasrec", "lightgcn"], [0], quiet(), threads=1, force=True)
    for name in ("sasrec-seed0.json", "lightgcn-seed0.json"):
        assert read_run(shop / "experiments/boards/shop" / name).metrics == first[name].metrics


def test_changed_settings_run_again(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = in_process(monkeypatch)
    board_run.run_models("shop", ["ease"], [0], quiet(), threads=1)
    config = shop / "experiments/configs/shop/baselines.yaml"
    config.write_text(CONFIG.replace("regularisation: 10", "regularisation: 20"))
    board_run.run_models("shop", ["ease"], [0], quiet(), threads=1)
    assert len(started) == 2
    assert read_run(shop / "experiments/boards/shop/ease-seed0.json").config["model"]["settings"]["regularisation"] == 20


def test_trials_note_validation_alone_and_are_not_repeated(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = in_process(monkeypatch)
    read = []
    monkeypatch.setattr(board_run, "record_run", lambda *a: read.append(a))
    path = board_run.tune_models("shop", [], quiet(), threads=1)
    board_run.tune_models("shop", ["sasrec"], quiet(), threads=1)
    assert len(started) == 1 and not read
    (trial,) = json.loads(path.read_text())
    assert trial["overrides"] == ["settings.encoder.dropout=0.5"] and set(trial["validation"]) == {"recall@10", "ndcg@10"}
    assert not list((shop / "experiments/boards/shop").glob("*-seed*"))


def test_what_a_user_can_get_wrong(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="boards exist for: shop"):
        board_run.run_models("no-such-set", [], [0], quiet())
    with pytest.raises(ConfigError, match="it has: popularity, ease"):
        board_run.run_models("shop", ["sasrek"], [0], quiet())
    with pytest.raises(ConfigError, match="no trials for 'ease' on the board of shop; there are some for: sasrec"):
        board_run.tune_models("shop", ["ease"], quiet())
    config = shop / "experiments/configs/shop/baselines.yaml"
    config.write_text(CONFIG.replace("encoder.dropout", "encoder.dropuot"))
    with pytest.raises(ConfigError, match="did you mean 'dropout'"):
        BoardConfig.of_dataset("shop")
    monkeypatch.delenv("RECSYS_DATA")
    with pytest.raises(ConfigError, match="RECSYS_DATA"):
        BoardConfig.of_dataset("shop")


def test_a_missing_file_is_an_error_of_the_data(shop: Path) -> None:
    (shop / "events.csv").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        board_run.run_models("shop", ["popularity"], [0], quiet())


def test_a_run_that_dies_says_how_to_go_on(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_run.sys, "executable", "/bin/false")
    with pytest.raises(RetryableError, match="the same command resumes it"):
        board_run.run_models("shop", ["popularity"], [0], quiet())


def test_other_data_and_a_lost_file_of_ranks_run_again(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = in_process(monkeypatch)
    (path,) = board_run.run_models("shop", ["ease"], [0], quiet(), threads=1)
    path.with_name("ease-seed0.ranks.parquet").unlink()
    board_run.run_models("shop", ["ease"], [0], quiet(), threads=1)
    assert len(started) == 2
    before = read_run(path)
    with (shop / "events.csv").open("a") as events:
        events.write("u0,i29,99\nu0,,100\n")
    board_run.run_models("shop", ["ease"], [0], quiet(), threads=1)
    after = read_run(path)
    assert len(started) == 3 and after.split_hash != before.split_hash
    assert after.data["quarantined, events.csv: missing item_id"] == 1


def test_a_split_that_leaks_is_refused_before_anything_is_trained(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, make = in_process(monkeypatch), split_module.make_split

    def leaking(config: SplitConfig, interactions: Interactions) -> Split:
        split = make(config, interactions)
        return replace(split, train=Sequences.of_rows([np.append(row, target) for row, target in zip(split.train, split.test.targets, strict=True)]))

    monkeypatch.setattr(split_module, "make_split", leaking)
    with pytest.raises(LeakError, match="the split of shop .* does not keep its targets apart: 80 inputs beyond the past"):
        board_run.run_models("shop", ["popularity"], [0], quiet(), threads=1)
    with pytest.raises(LeakError, match="the split of shop"):
        board_run.tune_models("shop", ["sasrec"], quiet(), threads=1)
    assert [arguments[0] for arguments in started] == ["trial"]


def test_a_record_states_the_training_that_it_came_from(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(monkeypatch)
    monkeypatch.setattr(board_training, "code_version", lambda: "first")
    (path,) = board_run.run_models("shop", ["sasrec"], [0], quiet(), threads=1)
    trained = read_run(path)
    monkeypatch.setattr(board_training, "code_version", lambda: "second")
    monkeypatch.setattr(run_records, "peak_mb", lambda: 1.0)
    board_run.run_models("shop", ["sasrec"], [0], quiet(), threads=2, force=True)
    loaded = read_run(path)
    assert (loaded.commit, loaded.threads) == ("first", 1)
    assert loaded.train_seconds == trained.train_seconds and loaded.peak_rss_mb > 1.0


def test_the_boards_of_the_documentation_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA", "/data")
    docs = Path(__file__).parents[2] / "docs"
    (shop,) = re.findall(r"```yaml\n(dataset: shop\n.*?)```", (docs / "evaluation.md").read_text(), re.DOTALL)
    board = BoardConfig.parse(yaml.safe_load(shop))
    assert board.trials.keys() <= board.models.keys() == {"popularity", "ease", "sasrec"}
    (models,) = re.findall(r"```yaml\n(models:\n.*?)```", (docs / "recbole.md").read_text(), re.DOTALL)
    foreign = BoardConfig.parse(yaml.safe_load(shop) | yaml.safe_load(models) | {"trials": {}})
    assert foreign.models["recbole-bpr"].settings.parameters == {"embedding_size": 64}


def test_a_dataset_has_the_name_of_its_folder(shop: Path) -> None:
    config = shop / "experiments/configs/shop/baselines.yaml"
    config.write_text(CONFIG.replace("dataset: shop", "dataset: other"))
    with pytest.raises(ConfigError, match="expected the folder's name"):
        BoardConfig.of_dataset("shop")
