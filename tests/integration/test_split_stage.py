"""Stage `split` refuses a split that leaks before it is saved."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines import split as stage
from recsys.data.interactions import Interactions
from recsys.data.sequences import Sequences
from recsys.data.split import Split, SplitConfig
from recsys.errors import LeakError


@pytest.fixture(autouse=True)
def ingested(tiny_interactions: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.ingest, "load", lambda artifact: SimpleNamespace(interactions=tiny_interactions))


@pytest.mark.parametrize("protocol", ["leave_last_out", "held_out_items"])
def test_an_honest_split_is_saved(protocol: str, tmp_path: Path) -> None:
    facts = stage.run(SplitConfig(protocol=protocol, held_out_share=0.15), {"data": None}, tmp_path, None)
    assert Split.load(tmp_path).digest == facts["split_hash"]


def test_a_test_interaction_in_training_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = stage.make_split

    def leaking(config: SplitConfig, interactions: Interactions) -> Split:
        split = make(config, interactions)
        rows = [np.append(row, split.test.targets[0]) if user == split.test.user_nums[0] else row for user, row in enumerate(split.train)]
        return replace(split, train=Sequences.of_rows(rows))

    monkeypatch.setattr(stage, "make_split", leaking)
    with pytest.raises(LeakError, match="2 inputs beyond the past; first: validation input of user 'u0'"):
        stage.run(SplitConfig(), {"data": None}, tmp_path, None)
    assert not list(tmp_path.iterdir())
