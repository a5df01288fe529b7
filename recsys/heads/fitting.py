"""Training of the fused ranker."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.config import digest_of
from recsys.data.split import Split
from recsys.errors import ConfigError, DataError
from recsys.heads.averaging import WithAverage
from recsys.heads.config import FusionConfig
from recsys.heads.network import FusionNetwork
from recsys.heads.ranker import ID, FusedRanker
from recsys.heads.signals import SignalTransform, fit_transform, present, whitening
from recsys.heads.warm_start import begin_as, fingerprint_of
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
    """What the network reads of the items. present: bool (n, 1 + S).  counts: float32 (n,), 0 where there are no IDs.
    candidates: int64 (C,), the items with interactions.  signals: prepared, frozen.  digest: of the items' vocabulary."""

    signals: dict[str, Tensor]
    present: Tensor
    counts: Tensor
    candidates: Tensor
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
    start: FusedRanker | None = None,
) -> FitResult:
    """Fit on `split.train`. `tables`: signal name -> vectors of all of `split.items`; empty for ID-only SASRec.

    validate: higher is better; called with the ranker as it is after an epoch. checkpoint: folder; see `training.loop.train`.
    start: begin as this ranker, of the same items or of their beginning (a warm start); see `begin_as`.

    Raises:
        ConfigError: a signal is called "id", options that do not fit the signals, or a start of another form.  DataError: nothing to train on.
        NonFiniteError: vectors or loss.  SpaceMismatchError: a table does not cover the items, or the start is of others.
        ArtifactError: another training's checkpoint.
    """
    if ID in tables:
        raise ConfigError(f"a signal may not be called {ID!r}")
    if not (split.train.lengths > 1).any():
        raise DataError("no user has two training interactions: there is no transition to learn from")
    _require_known(config, tables)
    raw = {name: table.aligned_to(split.items) for name, table in tables.items()}
    shown = [name for name in tables if config.of(name).adapter != "none"]
    if not shown and not config.use_ids:
        raise ConfigError("use_ids: false without a signal leaves nothing to rank items by")
    spaces = {name: tables[name].space_id for name in shown}
    inputs = _inputs(config, split, {name: raw[name] for name in shown})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        network = FusionNetwork(config, len(split.items), {name: z.shape[1] for name, z in inputs.signals.items()})
        if config.id_init in raw:
            _initialise_ids(network, raw[config.id_init], config, split.item_counts() > 0)
    if start is not None:
        if start.item_digest is not None:
            split.items.require_prefix(start.n_items, start.item_digest, what="the ranker to start from")
        begin_as(network, start)
    everything = {name: table.space_id for name, table in tables.items()}
    begun = [] if start is None else [fingerprint_of(start)]

    trained = WithAverage(network, config.average) if config.average else None
    kept = trained.average if trained else network

    def run_epoch(optimiser: torch.optim.Optimizer, epoch: int) -> float:
        return _run_epoch(network, config, split, inputs, optimiser, seed, epoch, trained.update if trained else None)

    state = train(
        trained or network,
        run_epoch,
        lambda: validate(_snapshot(kept, config, inputs, spaces)),
        config.training,
        seed=seed,
        fingerprint=digest_of([config.digest(), split.digest, list(everything.items()), seed, torch.__version__, *begun]),
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
        groups=_groups(network, config),
    )
    ranker = _snapshot(kept, config, inputs, spaces, _some_histories(split))
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return FitResult(ranker, state.history, state.seconds, state.best_epoch, state.capped, parameters, state.peak_mb)


def _require_known(config: FusionConfig, tables: Mapping[str, EmbeddingTable]) -> None:
    """Raises ConfigError: options of a signal that is not there."""
    wanted = {*config.each, *({config.id_init} - {"xavier", "zero"})}
    if unknown := sorted(wanted - tables.keys()):
        raise ConfigError(f"options of {', '.join(map(repr, unknown))}, but the signals are: {', '.join(tables) or 'none'}")


def _inputs(config: FusionConfig, split: Split, raw: Mapping[str, FloatArray]) -> _Inputs:
    counts = split.item_counts()
    columns, signals, transforms = [(counts > 0) & config.use_ids], {}, {}
    for name, vectors in raw.items():
        has_vector = present(vectors, name)
        transforms[name] = fit_transform(vectors[has_vector & (counts > 0)], config.of(name))
        signals[name] = transforms[name](vectors)
        columns.append(has_vector)
    stacked = np.stack(columns, axis=1)
    scorable = np.asarray(stacked.any(axis=1), dtype=np.bool_)
    shown_counts = torch.from_numpy((counts * config.use_ids).astype(np.float32))
    candidates = torch.from_numpy(np.flatnonzero(counts))
    return _Inputs(signals, torch.from_numpy(stacked), shown_counts, candidates, transforms, scorable, split.items.digest)


def _initialise_ids(network: FusionNetwork, vectors: FloatArray, config: FusionConfig, warm: BoolArray) -> None:
    """IDs of items that have a vector begin as its leading principal components, fitted on the training items."""
    has_vector = present(vectors, config.id_init)
    known = vectors[has_vector & warm].astype(np.float64)
    for tower in network.towers:
        if tower.ids is None:
            raise ConfigError(f"id_init: {config.id_init}, but use_ids is false")
        matrix, _ = whitening(known - known.mean(axis=0), tower.ids.weight.shape[1])
        begun = (vectors[has_vector] - known.mean(axis=0)) @ matrix * config.id_std
        with torch.no_grad():
            tower.ids.weight[torch.from_numpy(has_vector), : begun.shape[1]] = torch.from_numpy(begun.astype(np.float32))


def _groups(network: FusionNetwork, config: FusionConfig) -> list[dict[str, Any]] | None:
    """Parameters by their penalty; None: all alike."""
    if not config.id_decay and not config.adapter_decay:
        return None
    parts: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        own = {"ids": config.id_decay, "maps": config.adapter_decay}.get(name.removeprefix("head.").partition(".")[0], 0.0)
        parts.setdefault(own or config.training.weight_decay, []).append(parameter)
    return [{"params": parameters, "weight_decay": decay} for decay, parameters in parts.items()]


def _run_epoch(
    network: FusionNetwork,
    config: FusionConfig,
    split: Split,
    inputs: _Inputs,
    optimiser: torch.optim.Optimizer,
    seed: int,
    epoch: int,
    stepped: Callable[[], None] | None = None,
) -> float:
    # Only items with interactions are candidates: as perpetual negatives, cold items would be pushed below all others.
    candidates = inputs.candidates
    position = torch.full((len(inputs.counts),), -1, dtype=torch.int64)
    position[candidates] = torch.arange(len(candidates))
    whole = len(candidates) == len(position)
    total, steps = 0.0, 0
    training = config.training
    for parts in next_item_batches(
        split.train, max_length=config.encoder.max_length, batch_size=training.batch_size, seed=seed, epoch=epoch, sort=training.sort_by_length
    ):
        present, counts = _dropped(config, inputs)
        vectors = network.item_vectors(inputs.signals, present, counts)
        states = torch.cat(list(_states(network, [torch.from_numpy(part.inputs) for part in parts], vectors)))
        targets = torch.cat([torch.from_numpy(part.targets[part.targets != PAD]) for part in parts])
        ranked = network.ranked_vectors(vectors, inputs.signals, present, counts)
        ranked = ranked if whole else ranked.index_select(0, candidates)
        states, wanted = network.compared(states), position[targets]
        loss = catalogue_loss(config.loss, states, ranked, wanted)
        if config.smoothing:
            loss = loss + config.smoothing * _spread(states, ranked, wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if stepped is not None:
            stepped()
        total, steps = total + loss.item(), steps + 1
    return total / steps


def _spread(states: Tensor, ranked: Tensor, wanted: Tensor) -> Tensor:
    """What smoothing by 1 adds to the cross-entropy: the mean over positions of the target's logit less the mean of all logits."""
    return (states * (F.embedding(wanted, ranked) - ranked.mean(dim=0))).sum(dim=1).mean()


def _dropped(config: FusionConfig, inputs: _Inputs) -> tuple[Tensor, Tensor]:
    """`present` and `counts` as one step sees them. No item is left with nothing: it would be a zero vector."""
    present, counts = inputs.present, inputs.counts
    if config.id_dropout and config.use_ids and inputs.signals:
        # Items without any signal keep their ID.
        dropped = (torch.rand(len(counts)) < config.id_dropout) & present[:, 1:].any(dim=1)
        present = present.clone()
        present[:, 0] &= ~dropped
        counts = counts.masked_fill(dropped, 0.0)
    if config.signal_dropout and inputs.signals:
        kept = present.clone()
        kept[:, 1:] &= torch.rand(len(counts), len(inputs.signals)) >= config.signal_dropout
        present = torch.where(kept.any(dim=1, keepdim=True), kept, present)
    return present, counts


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
        parts = [tower.all_components(inputs.signals, inputs.present, inputs.counts) for tower in frozen.towers]
    read = parts[0].sum(dim=1) if frozen.head is not None else None

    def ranker(default: FloatArray | None) -> FusedRanker:
        return FusedRanker(config, frozen, parts[-1], inputs.scorable.copy(), inputs.transforms, spaces, default, read=read, item_digest=inputs.digest)

    if histories is None:
        return ranker(None)
    # A request without history is answered as the average user would be.
    whole = ranker(None)
    chunks = [whole.represent(histories.slice(start, start + 256)) for start in range(0, len(histories), 256)]
    return ranker(np.concatenate(chunks).astype(np.float64).mean(axis=0).astype(np.float32))


def _some_histories(split: Split) -> Queries:
    users = np.flatnonzero(split.train.lengths > 0)
    users = users[:: max(1, len(users) // _DEFAULT_STATE_USERS)]
    return Queries(users, [split.train[int(user)] for user in users])
