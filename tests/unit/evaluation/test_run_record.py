"""Records of runs: what is written is what is read, and what is broken is named."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.errors import ArtifactError
from recsys.evaluation.run_record import RunRecord, read_board, read_ranks, read_run, write_run
from recsys.evaluation.run_values import read_models

FACTS = {
    "dataset": "toy",
    "protocol": "leave_last_out",
    "split_hash": "a" * 64,
    "model": "m",
    "label": "M",
    "seed": 0,
    "config": {"dim": 8},
    "cases": 3,
    "metrics": {"recall@10": 1 / 3},
    "train_seconds": 1.5,
    "inference_ms_per_user": 0.25,
    "peak_rss_mb": 100.0,
    "threads": 1,
    "commit": "c",
    "command": "recsys board toy --run m",
    "created": "2026-01-01T00:00:00+00:00",
}
BETTER, TIED = np.array([0, 20, 30]), np.array([1, 1, 2])


def test_round_trip(tmp_path: Path) -> None:
    record = RunRecord(**FACTS, curve=[{"epoch": 1, "validation": 0.5}], capped="2 h")
    path = write_run(tmp_path / "new", record, BETTER, TIED)
    assert path.name == "m-seed0.json"
    assert read_run(path) == record
    better, tied = read_ranks(path)
    assert better.tolist() == [0, 20, 30] and tied.tolist() == [1, 1, 2]
    assert better.dtype == tied.dtype == np.int64
    assert sorted(p.name for p in path.parent.iterdir()) == ["m-seed0.json", "m-seed0.ranks.parquet"]


def test_what_is_undefined_is_null(tmp_path: Path) -> None:
    record = RunRecord(**FACTS, slices={"cold": {"count": 0, "recall@10": math.nan}}, beyond={"coverage@10": math.nan})
    path = write_run(tmp_path, record, BETTER, TIED)
    assert json.loads(path.read_text())["slices"] == {"cold": {"count": 0, "recall@10": None}}
    assert read_run(path) == record
    with pytest.raises(ValidationError):
        RunRecord(**{**FACTS, "metrics": {"recall@10": math.nan}})


@given(st.lists(st.tuples(st.integers(0, 2**31 - 2), st.integers(1, 2**31 - 2)), max_size=20))
def test_any_ranks_come_back(tmp_path_factory: pytest.TempPathFactory, ranks: list[tuple[int, int]]) -> None:
    better, tied = (np.array([r[i] for r in ranks], dtype=np.int64) for i in (0, 1))
    path = write_run(tmp_path_factory.mktemp("ranks"), RunRecord(**{**FACTS, "cases": len(ranks)}), better, tied)
    found = read_ranks(path)
    assert found[0].tolist() == better.tolist() and found[1].tolist() == tied.tolist()


def test_ranks_of_another_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 cases, but 2 and 3 ranks"):
        write_run(tmp_path, RunRecord(**FACTS), BETTER[:2], TIED)
    assert not list(tmp_path.iterdir())


def test_a_board_is_sorted_by_model_and_seed(tmp_path: Path) -> None:
    for model, seed in (("z", 0), ("b", 1), ("b", 0)):
        write_run(tmp_path, RunRecord(**{**FACTS, "model": model, "seed": seed}), BETTER, TIED)
    (tmp_path / "seeds.json").write_text("not a run")
    assert [(r.model, r.seed) for _, r in read_board(tmp_path)] == [("b", 0), ("b", 1), ("z", 0)]
    models = read_models(tmp_path)
    assert {name: [r.seed for _, r in runs] for name, runs in models.items()} == {"b": [0, 1], "z": [0]}
    assert models["b"][0][0] == tmp_path / "b-seed0.json"
    assert read_board(tmp_path / "none") == []
    assert read_models(tmp_path / "none") == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({**FACTS, "unknown": 1}), json.dumps({**FACTS, "seed": -1}), "\xff"])
def test_a_broken_record_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m-seed0.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ArtifactError, match="m-seed0.json: not the record of a run"):
        read_run(path)


def test_broken_ranks_are_named(tmp_path: Path) -> None:
    path = write_run(tmp_path, RunRecord(**FACTS), BETTER, TIED)
    ranks = tmp_path / "m-seed0.ranks.parquet"
    ranks.write_bytes(ranks.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match=r"m-seed0.ranks.parquet: the ranks of this run cannot be read"):
        read_ranks(path)
    pl.DataFrame({"better": [1]}).write_parquet(ranks)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_ranks(path)
    for bad in ({"better": [-1], "tied": [1]}, {"better": [0], "tied": [0]}, {"better": [None], "tied": [1]}):
        pl.DataFrame(bad, schema={"better": pl.Int64, "tied": pl.Int64}).write_parquet(ranks)
        with pytest.raises(ArtifactError, match="not ranks"):
            read_ranks(path)
    ranks.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_ranks(path)
