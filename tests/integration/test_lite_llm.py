"""`recsys lite-llm` on a small shop: records like those of a board, nothing done twice, a saved model that answers as the measured one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines import lite_llm
from pipelines.board_config import BoardConfig
from pipelines.board_training import load_board
from pipelines.cli import app
from recsys.artifacts.artifact import Artifact
from recsys.errors import ConfigError
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.run_record import read_board
from recsys.heads.lite_llm import LiteLLM
from recsys.testing.language_models import tiny_model

ITEMS = 20
BASELINES = """
dataset: shop
data:
  source:
    kind: table
    interactions: {path: $RECSYS_DATA/events.csv, columns: {user_id: user, item_id: item, time: ts}}
    items: {path: $RECSYS_DATA/items.csv, columns: {item_id: item, title: title}}
models: {popularity: {kind: popularity}}
"""
LITE = """
dataset: shop
models:
  lite_tied:
    label: tied
    vectors: {kind: encoder, encoder: {model: hashed, template: "{title}"}}
    settings: &settings {model: MODEL, layers: 1, head: tied, max_length: 10, training: {epochs: 2, batch_size: 16}}
    seeds: 2
  generative:
    label: generated
    validation_cases: 5
    settings: {<<: *settings, reader: text, head: generative, beams: 3, title_tokens: 6}
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    events = [f"u{user},i{item},{step}" for user in range(30) for step, item in enumerate(rng.permutation(ITEMS)[:7])]
    (tmp_path / "events.csv").write_text("user,item,ts\n" + "\n".join(events) + "\n")
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"i{n},kind {n % 3} {n}\n" for n in range(ITEMS)))
    folder = tmp_path / "experiments/configs/shop"
    folder.mkdir(parents=True)
    (folder / "baselines.yaml").write_text(BASELINES)
    (folder / "lite_llm.yaml").write_text(LITE.replace("MODEL", tiny_model(tmp_path / "llama", "llama")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path))
    return tmp_path


def test_each_model_has_its_records_and_none_is_trained_twice(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def child(arguments: list[str]) -> None:
        started.append(arguments)
        lite_llm.main(arguments)

    monkeypatch.setattr(lite_llm, "_child", child)
    command = ["lite-llm", "experiments/configs/shop/lite_llm.yaml", "--threads", "1"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0 and "tied" in result.stdout
    records = {record.stem: record for _, record in read_board(Path("experiments/boards/shop"))}
    assert set(records) == {"lite_tied-seed0", "lite_tied-seed1", "generative-seed0"} and len(started) == 3
    assert all(record.cases == 30 and record.parameters > 0 and len(record.curve) == 2 for record in records.values())
    assert records["lite_tied-seed0"].unmasked and not records["generative-seed0"].unmasked, "the costly way is ranked once"
    CliRunner().invoke(app, command, catch_exceptions=False)
    assert len(started) == 3, "done already"
    CliRunner().invoke(app, [*command, "--model", "lite_tied", "--seeds", "1", "--set", "models.lite_tied.settings.dropout=0.0"], catch_exceptions=False)
    assert len(started) == 4, "other settings are another run"

    split = load_board(BoardConfig.of_dataset("shop")).split
    found = read_board(Path("experiments/boards/shop"))
    saved = list(Path(".recsys/boards/shop").glob("lite_tied-*-seed1/model"))
    scorer = LiteLLM.load(Artifact.open(saved[0], kind="lite_llm").path)
    again = evaluate(scorer, split.test, split=split)
    measured = next(record for _, record in found if record.stem == "lite_tied-seed1")
    assert again.mean("ndcg@10") == pytest.approx(measured.metrics["ndcg@10"])


def test_what_does_not_fit_is_refused(shop: Path) -> None:
    path = Path("experiments/configs/shop/lite_llm.yaml")
    with pytest.raises(ConfigError, match="there are: lite_tied, generative"):
        lite_llm.LiteFile.of_file(path).model("other")
    with pytest.raises(ConfigError, match="needs `vectors`"):
        lite_llm.LiteFile.of_file(path, ["models.lite_tied.vectors=null"])
