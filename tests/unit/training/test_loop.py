"""The loop's cap: the epoch that passes it is validated, kept and the last."""

import torch
from torch import nn

from recsys.training.config import TrainingConfig
from recsys.training.loop import train


def test_a_cap_before_the_first_validation_still_validates() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)

    def run_epoch(optimiser: torch.optim.Optimizer, epoch: int) -> float:
        with torch.no_grad():
            module.weight += 1.0
        return 1.0

    config = TrainingConfig(epochs=100, validate_every=10, max_seconds=1e-9)
    state = train(module, run_epoch, lambda: module.weight.item(), config, seed=0, fingerprint="f")
    assert state.capped and state.epoch == state.best_epoch == 1
    assert module.weight.item() == 1.0, "the trained weights, not the initial ones"
    assert state.peak_mb > 10


def test_a_training_that_ends_by_itself_is_not_capped() -> None:
    module = nn.Linear(1, 1)
    state = train(module, lambda optimiser, epoch: 1.0, lambda: 0.5, TrainingConfig(epochs=9, patience=2, max_seconds=1e9), seed=0, fingerprint="f")
    assert not state.capped and state.epoch == 3 and state.best_epoch == 1
