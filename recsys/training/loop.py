"""The loop: epochs, validation, early stopping, best weights, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recsys.errors import NonFiniteError
from recsys.rng import derive_seed
from recsys.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from recsys.training.config import TrainingConfig
from recsys.training.memory import peak_mb

Progress = Callable[[int, int, dict[str, float]], None]
"""Called after each epoch with (epochs done, epochs at most, the epoch's numbers). An exception ends the training."""


def train(
    module: nn.Module,
    run_epoch: Callable[[torch.optim.Optimizer, int], float],
    validate: Callable[[], float],
    config: TrainingConfig,
    *,
    seed: int,
    fingerprint: str,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 10.0,
    progress: Progress | None = None,
    groups: Sequence[dict[str, Any]] | None = None,
) -> TrainingState:
    """Train `module` in place and leave it in eval mode with the weights of its best validation.

    run_epoch(optimiser, epoch) does one pass in training mode and returns the mean loss; its random numbers come from
    torch's generator, which is seeded by (seed, epoch) for the pass and put back after it, so a resumed run equals an
    undisturbed one bit by bit. validate() is called in eval mode; higher is better.
    checkpoint: folder; a training found there continues (a finished one is only loaded).
    groups: parameters with options of their own, as torch's optimisers take them, such as {"params": [...], "lr": 1e-4}; None: all alike.

    Raises:
        NonFiniteError: the loss or the validation value is NaN or infinite.
        ArtifactError: the checkpoint is damaged or belongs to another `fingerprint`.
    """
    trained = module.parameters() if groups is None else groups
    optimiser = torch.optim.Adam(trained, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True)
    state, best = TrainingState(), _weights(module)
    if checkpoint is not None and (found := load_checkpoint(checkpoint, fingerprint, module, optimiser)) is not None:
        state, best = found
    before, started = state.seconds, time.perf_counter()
    saved_at = started
    while not state.finished:
        epoch = state.epoch + 1
        module.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "epoch", str(epoch)))
            loss = run_epoch(optimiser, epoch)
        module.eval()
        _require_finite(loss, "training loss", epoch)
        numbers = {"epoch": float(epoch), "loss": loss}
        spent = before + time.perf_counter() - started
        last = epoch >= config.epochs or (config.max_seconds is not None and spent >= config.max_seconds)
        if epoch % config.validate_every == 0 or last:
            value = numbers["validation"] = validate()
            _require_finite(value, "validation value", epoch)
            if state.best is None or value > state.best:
                state.best, state.best_epoch, state.stale, best = value, epoch, 0, _weights(module)
            else:
                state.stale += 1
        state.epoch = epoch
        state.history.append(numbers)
        now = time.perf_counter()
        state.seconds = before + now - started
        state.peak_mb = max(state.peak_mb, peak_mb())
        state.finished = last or state.stale >= config.patience
        state.capped = last and epoch < config.epochs and state.stale < config.patience
        if checkpoint is not None and (state.finished or now - saved_at >= checkpoint_seconds):
            save_checkpoint(checkpoint, fingerprint, state, module, optimiser, best)
            saved_at = now
        if progress is not None:
            progress(epoch, config.epochs, numbers)
    module.load_state_dict(best)
    module.eval()
    return state


def _weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _require_finite(value: float, what: str, epoch: int) -> None:
    if not torch.isfinite(torch.tensor(value)):
        raise NonFiniteError(f"{what} of epoch {epoch} is {value}; lower the learning rate or look for non-finite vectors in the input")
