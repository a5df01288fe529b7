"""Training of Lite-LLM4Rec and of its ablations."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recsys.config import digest_of
from recsys.data.split import Split
from recsys.embeddings.first_layers import load_decoder
from recsys.errors import ConfigError, DataError
from recsys.generation.titles import Titles
from recsys.heads.generative import GenerativeLLM
from recsys.heads.lite_config import LiteConfig
from recsys.heads.lite_llm import LiteLLM
from recsys.heads.lite_network import LiteNetwork
from recsys.heads.signals import SignalTransform, fit_transform, present
from recsys.losses import catalogue_loss, softmax_cross_entropy
from recsys.rng import derive_seed
from recsys.training.batches import PAD, NextItemBatch, next_item_batches
from recsys.training.loop import Progress, train
from recsys.types import BoolArray, FloatArray, Queries, Scorer
from recsys.weights.find import find_weights

if TYPE_CHECKING:
    from recsys.embeddings.table import EmbeddingTable

_DEFAULT_STATE_USERS = 500


@dataclass(frozen=True)
class LiteFit:
    """history: one dict an epoch (epoch, loss, and validation where it was validated). seconds: over all resumed runs.
    best_epoch: the epoch whose weights were kept.  capped: ended by `max_seconds`.  parameters: trained numbers.
    peak_mb: of the training, in MiB, over all resumed runs."""

    scorer: LiteLLM | GenerativeLLM
    history: list[dict[str, float]]
    seconds: float
    best_epoch: int
    capped: bool
    parameters: int
    peak_mb: float


@dataclass(frozen=True)
class _Catalogue:
    """prepared: float (n, k), None where no vectors are read.  scorable, readable: bool (n,).
    candidates: int64 (C,), the items with interactions.  position: int64 (n,), theirs among the candidates."""

    prepared: Tensor | None
    transform: SignalTransform | None
    space_id: str
    scorable: BoolArray
    readable: BoolArray
    candidates: Tensor
    position: Tensor


def fit_lite(
    config: LiteConfig,
    split: Split,
    *,
    table: EmbeddingTable | None = None,
    titles: Sequence[str] | None = None,
    seed: int,
    checkpoint: Path | None = None,
    validate: Callable[[Scorer], float],
    progress: Progress | None = None,
    checkpoint_seconds: float = 60.0,
) -> LiteFit:
    """Fit on `split.train`.

    table: the item LLM's vectors of all of `split.items`.  titles: one text an item_num.  Each is needed where the configuration reads
    it (`needs_vectors`, `needs_titles`).  validate: higher is better; called with the scorer as it is after an epoch.
    checkpoint: folder; see `training.loop.train`.

    Raises:
        ConfigError: weights not found, or a table or titles that are needed are missing.  DataError: nothing to train on.
        NonFiniteError: vectors or loss.  UnknownIdError: a table that lacks items.  ArtifactError: another training's checkpoint.
    """
    if config.needs_vectors and table is None:
        raise ConfigError(f"reader: {config.reader} and head: {config.head} need a table of item vectors")
    if config.needs_titles and (titles is None or len(titles) != split.n_items):
        raise ConfigError(f"reader: {config.reader} and head: {config.head} need the titles of all {split.n_items} items")
    if not (split.train.lengths > 1).any():
        raise DataError("no user has two training interactions: there is no transition to learn from")
    model, tokenizer = load_decoder(config.model, config.layers, start=config.start, seed=seed)
    words = Titles(titles, tokenizer, config.title_tokens) if titles is not None and config.needs_titles else None
    _require_positions(config, model)
    catalogue = _catalogue(config, split, table if config.needs_vectors else None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        network = LiteNetwork(config, model, split.n_items, catalogue.prepared, words)

    def run_epoch(optimiser: torch.optim.Optimizer, epoch: int) -> float:
        return _run_epoch(network, config, split, catalogue, optimiser, seed, epoch)

    def snapshot(histories: Queries | None = None) -> LiteLLM | GenerativeLLM:
        # Copied: training goes on without moving what was handed out.
        frozen = copy.deepcopy(network)
        if config.head == "generative":
            return GenerativeLLM(frozen, catalogue.space_id, catalogue.readable.copy(), split.item_counts(), item_digest=split.items.digest)

        def scorer(default: FloatArray | None) -> LiteLLM:
            masks = catalogue.scorable.copy(), catalogue.readable.copy()
            return LiteLLM(frozen, catalogue.transform, catalogue.space_id, *masks, default, item_digest=split.items.digest)

        if histories is None:
            return scorer(None)
        # A request without history is answered as the average user would be.
        return scorer(scorer(None).represent(histories).astype(np.float64).mean(axis=0).astype(np.float32))

    parts = [config.digest(), find_weights(config.model).revision(), split.digest, catalogue.space_id, words.digest if words else "", seed, torch.__version__]
    state = train(
        network,
        run_epoch,
        lambda: validate(snapshot()),
        config.training,
        seed=seed,
        fingerprint=digest_of(parts),
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
        groups=network.parameter_groups(network),
    )
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return LiteFit(snapshot(_some_histories(split)), state.history, state.seconds, state.best_epoch, state.capped, parameters, state.peak_mb)


def batch_loss(network: LiteNetwork, config: LiteConfig, parts: Sequence[NextItemBatch], candidates: Tensor, position: Tensor) -> Tensor:
    """Of one step, a scalar: the mean over its positions, of the generative head over the tokens of its titles.

    candidates: int64 (C,), item_nums that compete.  position: int64 (n,), where an item stands among them.
    """
    inputs = network.inputs()
    rows = [(torch.from_numpy(part.inputs), torch.from_numpy(part.targets)) for part in parts]
    if config.head == "generative":
        found = [network.title_states(given, targets, inputs) for given, targets in rows]
        states, places = torch.cat([states for states, _ in found]), torch.cat([places for _, places in found])
        assert network.token_outputs is not None
        return softmax_cross_entropy(states, network.token_outputs, places)
    states = torch.cat([network.states(given, inputs) for given, _ in rows])
    targets = torch.cat([targets[targets != PAD] for _, targets in rows])
    items = network.items(inputs)
    # Only items with interactions compete: as perpetual negatives, cold items would be pushed below all others.
    return catalogue_loss(config.loss, states, items if len(candidates) == len(items) else items.index_select(0, candidates), position[targets])


def _run_epoch(network: LiteNetwork, config: LiteConfig, split: Split, catalogue: _Catalogue, optimiser: torch.optim.Optimizer, seed: int, epoch: int) -> float:
    training = config.training
    batches = next_item_batches(split.train, max_length=config.max_length, batch_size=training.batch_size, seed=seed, epoch=epoch, sort=training.sort_by_length)
    total, steps = 0.0, 0
    for parts in itertools.islice(batches, config.steps_per_epoch):
        loss = batch_loss(network, config, parts, catalogue.candidates, catalogue.position)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        total, steps = total + loss.item(), steps + 1
    return total / steps


def _catalogue(config: LiteConfig, split: Split, table: EmbeddingTable | None) -> _Catalogue:
    counts = split.item_counts()
    everything = np.ones(split.n_items, dtype=np.bool_)
    prepared, transform, has_vector = None, None, everything
    if table is not None:
        vectors = table.aligned_to(split.items)
        has_vector = present(vectors, "items")
        transform = fit_transform(vectors[has_vector & (counts > 0)], config.input_map)
        prepared = transform(vectors)
    readable = everything if config.reader == "text" else has_vector | (config.residual & (counts > 0))
    candidates = torch.from_numpy(np.flatnonzero(counts))
    position = torch.full((split.n_items,), -1, dtype=torch.int64)
    position[candidates] = torch.arange(len(candidates))
    scorable = has_vector if config.head == "tied" else counts > 0
    return _Catalogue(prepared, transform, table.space_id if table is not None else "", scorable, readable, candidates, position)


def _require_positions(config: LiteConfig, model: object) -> None:
    """Raises ConfigError: histories that may be longer than what the language model can count."""
    words = config.title_tokens + 1
    needed = config.max_length * (words if config.reader == "text" else 1) + (words if config.head == "generative" else 0)
    known = int(getattr(model.config, "max_position_embeddings", 0) or 0)  # type: ignore[attr-defined]
    if 0 < known < needed:
        raise ConfigError(f"{config.model}: a history may take {needed} positions, the model has {known}; lower max_length or title_tokens")


def _some_histories(split: Split) -> Queries:
    users = np.flatnonzero(split.train.lengths > 0)
    users = users[:: max(1, len(users) // _DEFAULT_STATE_USERS)]
    return Queries(users, [split.train[int(user)] for user in users])
