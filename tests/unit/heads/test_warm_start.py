"""A training that begins where another ended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.data.interactions import Interactions
from recsys.data.split import Split, SplitConfig, make_split
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ConfigError, SpaceMismatchError
from recsys.heads.fusion import FusedRanker, FusionConfig, fit_ranker
from recsys.heads.network import FusionNetwork
from recsys.heads.warm_start import begin_as

CONFIG = FusionConfig.parse({"encoder": {"dim": 8, "blocks": 1, "max_length": 8}, "training": {"epochs": 3, "patience": 3}})


def fit(split: Split, start: FusedRanker | None = None, config: FusionConfig = CONFIG, **options: object) -> FusedRanker:
    return fit_ranker(config, split, {}, seed=0, validate=lambda _: 0.0, start=start, **options).ranker  # type: ignore[arg-type]


def test_items_and_states_begin_where_they_ended(tiny_split: Split, tmp_path: Path) -> None:
    fitted = fit(tiny_split)
    fitted.save(tmp_path)
    begun = FusionNetwork(CONFIG, tiny_split.n_items, {})
    begin_as(begun, FusedRanker.load(tmp_path))
    assert begun.ids is not None
    assert torch.equal(begun.ids.weight * torch.from_numpy(tiny_split.item_counts() > 0)[:, None], fitted._components[:, 0])
    for name, value in fitted._network.state_dict().items():
        if name != "ids.weight":
            assert torch.equal(begun.state_dict()[name], value), name


def test_a_warm_start_is_another_training_with_a_checkpoint_of_its_own(tiny_split: Split, tmp_path: Path) -> None:
    cold = fit(tiny_split, checkpoint=tmp_path / "cold")
    warm = fit(tiny_split, cold, checkpoint=tmp_path / "warm")
    again = fit(tiny_split, cold, checkpoint=tmp_path / "warm")
    assert not np.array_equal(cold.items(), warm.items()) and np.array_equal(warm.items(), again.items())
    assert np.array_equal(cold.items(), fit(tiny_split).items())


def test_a_vocabulary_that_grew_keeps_its_beginning(tiny_interactions: Interactions, tiny_split: Split) -> None:
    longer = Vocabulary([*tiny_interactions.items.ids, "new"])
    grown = make_split(SplitConfig(), Interactions.of_frame(tiny_interactions.to_frame(), longer))
    assert fit(grown, fit(tiny_split)).n_items == len(longer)
    with pytest.raises(SpaceMismatchError, match="made on another vocabulary"):
        fit(tiny_split, fit(grown))
    other = make_split(SplitConfig(), Interactions.of_frame(tiny_interactions.to_frame(), Vocabulary(reversed(tiny_interactions.items.ids))))
    with pytest.raises(SpaceMismatchError, match="made on another vocabulary"):
        fit(other, fit(tiny_split))


@pytest.mark.parametrize("change", [{"encoder": {"dim": 16, "max_length": 8}}, {"encoder": {"dim": 8, "blocks": 2, "max_length": 8}}, {"projection": False}])
def test_another_form_is_refused(tiny_split: Split, change: dict[str, object]) -> None:
    other = FusionConfig.parse({**CONFIG.model_dump(), **change})
    with pytest.raises(ConfigError, match="warm_start: the champion has another form"):
        fit(tiny_split, fit(tiny_split), other)


def test_a_free_head_is_refused(tiny_split: Split) -> None:
    free = CONFIG.model_copy(update={"head": "free", "projection": False})
    with pytest.raises(ConfigError, match="a free head keeps no IDs"):
        fit(tiny_split, fit(tiny_split, config=free), free)
