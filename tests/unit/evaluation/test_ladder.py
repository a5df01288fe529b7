"""The ladder of hand-made runs: differences to the lowest rung and to the one below, corrected over the rungs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.errors import DataError
from recsys.evaluation.ladder import ladder, markdown
from recsys.evaluation.run_record import read_board
from recsys.evaluation.run_values import Run
from tests.unit.evaluation.test_board import CASES, put


def of_models(folder: Path, *names: str) -> list[list[Run]]:
    runs = read_board(folder)
    return [[run for run in runs if run[1].model == name] for name in names]


def test_each_rung_beside_the_lowest_and_the_one_below(tmp_path: Path) -> None:
    put(tmp_path, "id", [20] * CASES)
    # Rank 1 in every case, then in every second: the mean of the two seeds is rank 1 or rank 1 and a miss.
    put(tmp_path, "text", [0] * CASES, seed=0, parameters=70, spaces={"minilm": "abc"})
    put(tmp_path, "text", [0, 20] * (CASES // 2), seed=1, parameters=70, spaces={"minilm": "abc"})
    put(tmp_path, "all", [0] * CASES, slices={"few-shot": {"count": 3, "recall@10": 0.25}})
    low, middle, top = rungs = ladder(of_models(tmp_path, "id", "text", "all"))
    assert low.to_base is None and low.to_previous is None and low.levels["recall@10"].mean == 0
    assert middle.seeds == 2 and middle.levels["recall@10"].mean == 0.75 and middle.levels["recall@10"].deviation == pytest.approx(np.sqrt(0.125))
    assert middle.to_base is not None and top.to_base is not None and top.to_previous is not None
    assert middle.to_base["recall@10"].difference == 0.75 and top.to_previous["recall@10"].difference == 0.25
    assert top.to_base["recall@10"].p_bootstrap < top.to_base["recall@10"].holm < 0.01, "corrected over two rungs"
    assert top.few == 0.25 and np.isnan(middle.few)
    text = markdown("toy", rungs, CASES, ["graph"])
    assert "| TEXT (text) | 2 | 0.7500 ± 0.3536 [" in text
    assert "minilm `abc`" in text and "Not run yet: graph." in text
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1


def test_rungs_of_two_splits_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "id", [1] * CASES)
    put(tmp_path, "text", [0] * CASES, split="b" * 64)
    with pytest.raises(DataError, match="not of one split"):
        ladder(of_models(tmp_path, "id", "text"))
