"""Training of stage 2: projections into the token space of a frozen language model, by next-token loss over the target's title."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.alignment.a_llmrec import ALLMRec, joint_of, network_of, prompts_of
from recsys.alignment.aligned import Aligned
from recsys.alignment.config import ProjectionConfig
from recsys.alignment.examples import Examples
from recsys.alignment.frozen_llm import FrozenLLM
from recsys.alignment.lens import fitted_lens
from recsys.alignment.reading import Reader
from recsys.config import digest_of
from recsys.data.split import Split
from recsys.errors import ConfigError, SpaceMismatchError
from recsys.rng import derive_seed, numpy_generator
from recsys.training.loop import Progress, train
from recsys.types import IntArray


@dataclass(frozen=True)
class ProjectedFit:
    """history: one dict an epoch (epoch, loss, and validation where it was validated). seconds: over all resumed runs.
    best_epoch: the epoch whose weights were kept.  capped: ended by `max_seconds`.  parameters: trained numbers.
    peak_mb: of the training, in MiB, over all resumed runs.  examples: of an epoch, one a user."""

    model: ALLMRec
    history: list[dict[str, float]]
    seconds: float
    best_epoch: int
    capped: bool
    parameters: int
    peak_mb: float
    examples: int


def fit_projection(
    config: ProjectionConfig,
    split: Split,
    aligned: Aligned,
    titles: Sequence[str],
    *,
    seed: int,
    users: IntArray | None = None,
    llm: FrozenLLM | None = None,
    checkpoint: Path | None = None,
    validate: Callable[[ALLMRec], float],
    progress: Progress | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    checkpoint_seconds: float = 60.0,
) -> ProjectedFit:
    """Fit on `split.train`. titles: one text an item_num.

    users: int64, those whose histories train; None: all.  llm: where it is loaded already.  validate: higher is better; called after an epoch with the
    model as it is then.  checkpoint: folder; see `training.loop.train`.  on_batch: (done, of an epoch).
    The language model and the recommender are proven to be and to answer after the training as before.

    Raises:
        DataError: nothing to train on.  SpaceMismatchError: stage 1 or the titles are of other items.
        ConfigError: weights not found, prompts too long, or something moved that is frozen.
        NonFiniteError: the loss.  ArtifactError: another training's checkpoint.
    """
    if aligned.n_items != split.n_items or len(titles) != split.n_items or aligned.item_digest != split.items.digest:
        raise SpaceMismatchError(f"stage 1 knows {aligned.n_items} items, there are {len(titles)} titles and {split.n_items} items in the split: use one split")
    llm = llm or FrozenLLM.load(config, seed)
    prompts = prompts_of(config, llm, titles)
    examples = Examples.of_split(split, "last" if config.positions == "last" else "all", users)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        network = network_of(config, aligned, llm)
    if config.readout == "lens" and config.layers is not None and config.start == "pretrained" and config.lens_prompts:
        network.begin_lens(*fitted_lens(config, llm, titles, examples.histories, examples.targets, seed=seed))
    reader = Reader(network, llm)
    warm = np.flatnonzero(aligned.warm).astype(np.int64)
    examples = _with_targets(examples, aligned.warm)
    joint, texts = (torch.from_numpy(side.copy()) for side in (joint_of(config, aligned, seed), aligned.joint("text")))
    swappable = torch.from_numpy(aligned.warm & aligned.has_text) if config.item_vectors == "joint" else torch.zeros(split.n_items, dtype=torch.bool)
    # Only items with interactions compete: as perpetual negatives, cold items would be pushed below all others.
    candidates, own = torch.from_numpy(warm), torch.from_numpy(aligned.items()[warm])
    position = torch.full((split.n_items,), -1, dtype=torch.int64)
    position[candidates] = torch.arange(len(candidates))
    per_epoch = len(np.unique(examples.user_nums))

    def step_loss(chosen: Examples, states: Tensor, offered: IntArray) -> Tensor:
        asked = [prompts.recommend(history, row) for history, row in zip(chosen.histories, offered.tolist(), strict=True)]
        answers = [prompts.answer(item) for item in chosen.targets.tolist()]
        side = torch.where((swappable & (torch.rand(split.n_items) < config.text_share))[:, None], texts, joint) if config.text_share else joint
        last, before, tokens = reader.read(asked, answers, states, side)
        loss = config.title_weight * reader.title_loss(before, tokens) if config.title_weight else last.new_zeros(())
        if config.catalogue_weight:
            logits = network.ranking_states(last) @ network.ranking_items(network.items(side[candidates])).T
            if config.on_backbone:
                logits = logits + states @ own.T
            loss = loss + config.catalogue_weight * F.cross_entropy(logits, position[torch.from_numpy(chosen.targets)])
        return loss

    def run_epoch(optimiser: torch.optim.Optimizer, epoch: int) -> float:
        drawn = _rows(examples, one_a_user(examples.user_nums, config.positions, seed, epoch))
        states = torch.from_numpy(aligned.backbone.states(drawn.user_nums, drawn.histories))
        offered = _offered(drawn, config.candidates, warm, seed, epoch)
        total, steps = 0.0, 0
        for batch in torch.split(torch.randperm(len(drawn)), config.training.batch_size):
            rows = batch.numpy()
            loss = step_loss(_rows(drawn, rows), states[batch], offered[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            total, steps = total + loss.item(), steps + 1
            if on_batch is not None:
                on_batch(steps * config.training.batch_size, len(drawn))
        return total / steps

    def snapshot() -> ALLMRec:
        # Copied: training goes on without moving what was handed out.
        return ALLMRec(copy.deepcopy(network), config, aligned, llm, prompts, joint.numpy())

    who = "all" if users is None else digest_of(users.tolist())
    parts = [config.digest(), split.digest, aligned.digest, llm.digest, prompts.digest, who, seed, torch.__version__]
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
    )
    aligned.backbone.require_unchanged()
    llm.require_unchanged()
    parameters = sum(p.numel() for p in network.parameters())
    return ProjectedFit(snapshot(), state.history, state.seconds, state.best_epoch, state.capped, parameters, state.peak_mb, per_epoch)


def one_a_user(user_nums: IntArray, positions: Literal["last", "random"], seed: int, epoch: int) -> IntArray:
    """int64 (U,): one row of each user, in the order of the users. user_nums: int64 (N,), each user's rows together, oldest first."""
    starts = np.flatnonzero(np.diff(user_nums, prepend=-1))
    counts = np.diff(np.append(starts, len(user_nums)))
    if positions == "last":
        return np.asarray(starts + counts - 1, dtype=np.int64)
    places = numpy_generator(seed, "positions", str(epoch)).random(len(starts)) * counts
    return np.asarray(starts + places.astype(np.int64), dtype=np.int64)


def _rows(examples: Examples, rows: IntArray) -> Examples:
    return Examples(examples.user_nums[rows], [examples.histories[row] for row in rows.tolist()], examples.targets[rows], examples.met, examples.n_items)


def _with_targets(examples: Examples, warm: np.ndarray) -> Examples:
    """Those whose target the frozen recommender knows."""
    known = np.flatnonzero(warm[examples.targets]).astype(np.int64)
    if not len(known):
        raise ConfigError("the frozen recommender knows no target of any training user; train it on the same split")
    return _rows(examples, known)


def _offered(examples: Examples, count: int, warm: IntArray, seed: int, epoch: int) -> IntArray:
    """int64 (N, count): the target among negatives, shuffled."""
    if not count:
        return np.zeros((len(examples), 0), dtype=np.int64)
    negatives = examples.negatives(count - 1, warm, seed, epoch)
    offered = np.concatenate([examples.targets[:, None], negatives], axis=1)
    return np.asarray(numpy_generator(seed, "order of candidates", str(epoch)).permuted(offered, axis=1), dtype=np.int64)
