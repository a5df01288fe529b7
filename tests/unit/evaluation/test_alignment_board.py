"""The board of A-LLMRec: slices and figures by hand, runs that come back as they were, differences paired over cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.errors import ArtifactError
from recsys.evaluation.alignment_board import Ranks, Slicing, board_document, figures_of, item_borders, markdown, read_alignment_board, write_alignment_run

COUNTS = np.array([0, 1, 1, 2, 3, 8, 9, 10, 11, 12])
SLICING = Slicing(np.array([0, 1, 9, 12]), np.array([2, 5, 6, 30]))


def ranks(better: list[int]) -> Ranks:
    return Ranks(np.array(better), np.ones(len(better), dtype=np.int64))


RANKS = {
    "test/backbone/sampled": ranks([19, 0, 1, 0]),
    "test/backbone/full": ranks([99, 4, 0, 1]),
    "test/titles/sampled": ranks([0, 0, 0, 1]),
}


def document(model: str = "main", seed: int = 0) -> dict[str, object]:
    stages = {"stage 1": 1, "stage 2": 2}
    return {
        "model": model, "label": "A", "seed": seed, "protocol": "p", "users": {"list": "x", "test": 4}, "config": {},
        "command": f"c {model}", "commit": "abc", "threads": 1, "capped": [],
        "seconds": {"backbone": 0.0, **stages}, "milliseconds": {"titles": 2.0}, "parameters": stages,
        "epochs": {"stage 1": [2, 1], "stage 2": [2, 1]},
        "peak_mb": 1.0, "item_borders": item_borders(COUNTS), "curves": {}, "figures": {},
    }  # fmt: skip


def test_slices_and_figures_by_hand() -> None:
    borders = item_borders(COUNTS)
    assert borders == {"rare": 2, "frequent": 9, "few": 5}
    masks = SLICING.masks(borders)
    assert masks["rare items"].tolist() == [True, True, False, False] and masks["frequent items"].tolist() == [False, False, True, True]
    assert masks["new items"].tolist() == [True, False, False, False] and masks["short history"].tolist() == [True, True, False, False]
    found = figures_of("test", RANKS, SLICING, borders)
    assert set(found) == {"backbone", "titles"} and found["titles"]["all"] == {"count": 4.0, "hit@1": 0.75, "recall@10": None, "ndcg@10": None}
    assert found["backbone"]["all"]["hit@1"] == 0.5 and found["backbone"]["all"]["recall@10"] == 0.75
    assert found["backbone"]["new items"]["recall@10"] == 0.0 and found["titles"]["new items"]["hit@1"] == 1.0


def test_runs_come_back_and_differences_are_paired(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_alignment_run(tmp_path / f"main-seed{seed}.json", document(seed=seed), RANKS, {"test": SLICING})
    runs = read_alignment_board(tmp_path)
    assert [run.document["seed"] for run in runs] == [0, 1] and runs[0].ranks["test/titles/sampled"].better.tolist() == [0, 0, 0, 1]
    board = board_document(runs, ["other", "main"])
    (model,) = board["models"]
    cell = model["kinds"]["test"]["titles"]["all"]["hit@1"]
    assert cell["mean"] == 0.75 and cell["deviation"] == 0.0 and cell["difference"] == pytest.approx(0.25) and cell["low"] <= 0.25 <= cell["high"]
    assert "difference" not in model["kinds"]["test"]["backbone"]["all"]["hit@1"]
    page = markdown("shop", board, "recsys a-llmrec c")
    assert "| A-LLMRec, titles | all | 4 | 0.7500 ± 0.0000 (+0.2500 [" in page and page.count("- `c main`") == 1 and "curves" not in board["runs"][0]
    (tmp_path / "main-seed0.test.parquet").unlink()
    with pytest.raises(ArtifactError, match="not a run"):
        read_alignment_board(tmp_path)
