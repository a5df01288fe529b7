"""Training of the fused ranker."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.config import digest_of
from recsys.data.split import Split
from recsys.errors import ConfigError, DataError
from recsys.heads.config import FusionConfig
from recsys.heads.network import FusionNetwork
from recsys.heads.ranker import ID, FusedRanker
from recsys.heads.signals import SignalTransform, fit_transform, present
from recsys.losses import catalogue_loss
from recsys.rng import derive_seed
from recsys.training.batches import PAD, next_item_batches
from recsys.training.loop import Progress, train
from recsys.types import BoolArray, FloatArray, Queries, Scorer

if TYPE_CHECKING:
    from recsys.embeddings.table import EmbeddingTable

_DEFAULT_STATE_USERS = 2000


@dataclass(frozen=True)
class FitResult:
    """history: one dict an epoch (epoch, loss, and validation where it was validated). seconds: over all resumed runs.
    best_epoch: the epoch whose weights were kept.  capped: ended by `max_seconds`.  parameters: trained numbers.
    peak_mb: of the training, in MiB, over all resumed runs."""

    ranker: FusedRanker
    history: list[dict[str, float]]
    seconds: float
    best_epoch: int
    capped: bool
    parameters: int
    peak_mb: float


@dataclass(frozen=True)
class _Inputs:
    """What the network reads of the items. present: bool (n, 1 + S).  counts: float32 (n,).  signals: normalised, frozen.
    digest: of the items' vocabulary."""

    signals: dict[str, Tensor]
    present: Tensor
    counts: Tensor
    transforms: dict[str, SignalTransform]
    scorable: BoolArray
    digest: str


def fit_ranker(
    config: FusionConfig,
    split: Split,
    tables: Mapping[str, EmbeddingTable],
    *,
    seed: int,
    checkpoint: Path | None = None,
    validate: Callable[[Scorer], float],
    progress: Progress | None = None,
    checkpoint_seconds: float = 10.0,
) -> FitResult:
    """Fit on `split.train`. `tables`: signal name -> text vectors of all of `split.items`; empty for ID-only SASRec.

    validate: higher is better; called with the ranker as it is after an epoch. checkpoint: folder; see `training.loop.train`.

    Raises:
        ConfigError: a signal is called "id".  DataError: nothing to train on.  NonFiniteError: vectors or loss.
        SpaceMismatchError: a table does not cover the items.  ArtifactError: another training's checkpoint.
    """
    if ID in tables:
        raise ConfigError(f"a text signal may not be called {ID!r}")
    if not (split.train.lengths > 1).any():
        raise DataError("no user has two training interactions: there is no transition to learn from")
    raw = {name: table.aligned_to(split.items) for name, table in tables.items()}
    spaces = {name: table.space_id for name, table in tables.items()}
    inputs = _inputs(config, split, raw)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        network = FusionNetwork(config, len(split.items), {name: z.shape[1] for name, z in inputs.signals.items()})

    def run_epoch(optimiser: torch.optim.Optimizer, epoch: int) -> float:
        return _run_epoch(network, config, split, inputs, optimiser, seed, epoch)

    state = train(
        network,
        run_epoch,
        lambda: validate(_snapshot(network, config, inputs, spaces)),
        config.training,
        seed=seed,
        fingerprint=digest_of([config.digest(), split.digest, list(spaces.items()), seed, torch.__version__]),
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
    )
    ranker = _snapshot(network, config, inputs, spaces, _some_histories(split))
    parameters = sum(p.numel() for p in network.parameters())
    return FitResult(ranker, state.history, state.seconds, state.best_epoch, state.capped, parameters, state.peak_mb)


def _inputs(config: FusionConfig, split: Split, raw: Mapping[str, FloatArray]) -> _Inputs:
    counts = split.item_counts()
    columns, signals, transforms = [counts > 0], {}, {}
    for name, vectors in raw.items():
        has_vector = present(vectors, name)
        transforms[name] = fit_transform(vectors[has_vector & (counts > 0)], config.transform, config.components)
        signals[name] = transforms[name](vectors)
        columns.append(has_vector)
    stacked = np.stack(columns, axis=1)
    scorable = np.asarray(stacked.any(axis=1), dtype=np.bool_)
    return _Inputs(signals, torch.from_numpy(stacked), torch.from_numpy(counts.astype(np.float32)), transforms, scorable, split.items.digest)


def _run_epoch(network: FusionNetwork, config: FusionConfig, split: Split, inputs: _Inputs, optimiser: torch.optim.Optimizer, seed: int, epoch: int) -> float:
    # Only items with interactions are candidates: as perpetual negatives, cold items would be pushed below all others.
    candidates = inputs.counts.nonzero()[:, 0]
    position = torch.full((len(inputs.counts),), -1, dtype=torch.int64)
    position[candidates] = torch.arange(len(candidates))
    whole = len(candidates) == len(position)
    has_text = inputs.present[:, 1:].any(dim=1)
    total, steps = 0.0, 0
    training = config.training
    for parts in next_item_batches(
        split.train, max_length=config.encoder.max_length, batch_size=training.batch_size, seed=seed, epoch=epoch, sort=training.sort_by_length
    ):
        present, counts = inputs.present, inputs.counts
        if config.id_dropout and network.names:
            # Items without text keep their ID: with nothing left they would be zero vectors.
            dropped = (torch.rand(len(counts)) < config.id_dropout) & has_text
            present = present.clone()
            present[:, 0] &= ~dropped
            counts = counts.masked_fill(dropped, 0.0)
        vectors = network.item_vectors(inputs.signals, present, counts)
        states = torch.cat(list(_states(network, [torch.from_numpy(part.inputs) for part in parts], vectors)))
        targets = torch.cat([torch.from_numpy(part.targets[part.targets != PAD]) for part in parts])
        ranked = network.project(vectors)
        loss = catalogue_loss(config.loss, states, ranked if whole else ranked.index_select(0, candidates), position[targets])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total, steps = total + loss.item(), steps + 1
    return total / steps


def _states(network: FusionNetwork, parts: list[Tensor], vectors: Tensor) -> Iterator[Tensor]:
    """For each part int64 (B, L) the states float (P, d) of its P valid positions. All vectors are looked up at once: each
    look-up costs a gradient of the whole table."""
    together = F.embedding(torch.cat([rows.flatten() for rows in parts]).clamp(min=0), vectors)
    looked_up = torch.split(together, [rows.numel() for rows in parts])
    for rows, flat in zip(parts, looked_up, strict=True):
        valid = rows != PAD
        yield network.encoder(flat.view(*rows.shape, -1) * valid[..., None], valid)[valid]


def _snapshot(network: FusionNetwork, config: FusionConfig, inputs: _Inputs, spaces: Mapping[str, str], histories: Queries | None = None) -> FusedRanker:
    """The network as it is now, copied: training goes on without moving what was handed out."""
    frozen = copy.deepcopy(network)
    with torch.no_grad():
        components = frozen.components(frozen.ids.weight, inputs.signals, inputs.present, inputs.counts)
    ranker = FusedRanker(config, frozen, components, inputs.scorable.copy(), inputs.transforms, spaces, item_digest=inputs.digest)
    if histories is None:
        return ranker
    # A request without history is answered as the average user would be.
    chunks = [ranker.represent(histories.slice(start, start + 256)) for start in range(0, len(histories), 256)]
    default = np.concatenate(chunks).astype(np.float64).mean(axis=0).astype(np.float32)
    return FusedRanker(config, frozen, components, inputs.scorable.copy(), inputs.transforms, spaces, default, item_digest=inputs.digest)


def _some_histories(split: Split) -> Queries:
    users = np.flatnonzero(split.train.lengths > 0)
    users = users[:: max(1, len(users) // _DEFAULT_STATE_USERS)]
    return Queries(users, [split.train[int(user)] for user in users])
