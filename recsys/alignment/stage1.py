"""Training of stage 1."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from recsys.alignment.aligned import Aligned
from recsys.alignment.config import MatchingConfig
from recsys.alignment.examples import Examples
from recsys.alignment.frozen import FrozenBackbone
from recsys.alignment.matching import MatchingNetwork
from recsys.config import digest_of
from recsys.data.split import Split
from recsys.errors import DataError, SpaceMismatchError
from recsys.heads.signals import present
from recsys.rng import derive_seed
from recsys.training.loop import Progress, train
from recsys.types import FloatArray, IntArray, Scorer

if TYPE_CHECKING:
    from recsys.embeddings.table import EmbeddingTable


@dataclass(frozen=True)
class AlignedFit:
    """history: one dict an epoch (epoch, loss, and validation where it was validated). seconds: over all resumed runs.
    best_epoch: the epoch whose weights were kept.  capped: ended by `max_seconds`.  parameters: trained numbers.
    peak_mb: of the training, in MiB, over all resumed runs.  examples: of an epoch."""

    aligned: Aligned
    history: list[dict[str, float]]
    seconds: float
    best_epoch: int
    capped: bool
    parameters: int
    peak_mb: float
    examples: int


def fit_alignment(
    config: MatchingConfig,
    split: Split,
    backbone: FrozenBackbone,
    texts: EmbeddingTable,
    *,
    seed: int,
    users: IntArray | None = None,
    checkpoint: Path | None = None,
    validate: Callable[[Scorer], float],
    progress: Progress | None = None,
    checkpoint_seconds: float = 10.0,
) -> AlignedFit:
    """Fit on `split.train`. texts: vectors of all of `split.items`; a zero row is an item without text.

    users: int64, those whose histories train; None: all.  validate: higher is better; called after an epoch with the scorer as it is then.
    checkpoint: folder; see `training.loop.train`.  The backbone is proven to answer after the training as it did before.

    Raises:
        DataError: nothing to train on.  SpaceMismatchError: the backbone has other items.  ConfigError: a backbone that is not frozen.
        NonFiniteError: vectors or loss.  UnknownIdError: a table that lacks items.  ArtifactError: another training's checkpoint.
    """
    if backbone.n_items != split.n_items:
        raise SpaceMismatchError(f"the backbone was fitted on {backbone.n_items} items, the split has {split.n_items}: fit and align on one split")
    warm = (split.item_counts() > 0) & backbone.scorable
    values = texts.aligned_to(split.items)
    has_text = present(values, "text")
    if not (warm & has_text).any():
        raise DataError("no item has both training interactions and a text: there is nothing to align")
    examples = Examples.of_split(split, config.positions, users)
    known = np.flatnonzero(warm[examples.targets])
    examples = Examples(examples.user_nums[known], [examples.histories[row] for row in known.tolist()], examples.targets[known], examples.met, split.n_items)
    # Frozen, so that one pass is all passes.
    states = torch.from_numpy(backbone.states(examples.user_nums, examples.histories))
    items, text_values = torch.from_numpy(backbone.items.copy()), torch.from_numpy(values.copy())
    text_mask = torch.from_numpy(has_text.copy())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        # Nothing of a cold item enters a normaliser.
        scales = _root_mean_square(backbone.items[warm]), _root_mean_square(values[warm & has_text])
        network = MatchingNetwork(config, backbone.dim, values.shape[1], *scales)
    candidates = np.flatnonzero(warm).astype(np.int64)

    def run_epoch(optimiser: torch.optim.Optimizer, epoch: int) -> float:
        offered = torch.from_numpy(np.concatenate([examples.targets[:, None], examples.negatives(config.negatives, candidates, seed, epoch)], axis=1))
        total, steps = 0.0, 0
        for rows in torch.split(torch.randperm(len(examples)), config.training.batch_size):
            chosen = offered[rows]
            loss = network.losses(states[rows], items[chosen], text_values[chosen], text_mask[chosen]).total(config)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total, steps = total + loss.item(), steps + 1
        return total / steps

    def snapshot() -> Aligned:
        frozen = copy.deepcopy(network)
        return Aligned(
            frozen, backbone, values, warm, has_text, text_space=texts.space_id, split_hash=split.digest, item_digest=split.items.digest
        )  # fmt: skip

    who = "all" if users is None else digest_of(users.tolist())
    state = train(
        network,
        run_epoch,
        lambda: validate(snapshot()),
        config.training,
        seed=seed,
        fingerprint=digest_of([config.digest(), split.digest, backbone.digest, texts.space_id, who, seed, torch.__version__]),
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
    )
    backbone.require_unchanged()
    parameters = sum(p.numel() for p in network.parameters())
    return AlignedFit(snapshot(), state.history, state.seconds, state.best_epoch, state.capped, parameters, state.peak_mb, len(examples))


def _root_mean_square(values: FloatArray) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean())) or 1.0
