"""What all trainings on pairs of items share: the options, the pairs that are drawn, the steps, what stops them.

An encoder is trained so that items that training interactions bring together (`recsys.data.pairs`) come to lie side by side, as in
NoteLLM (Zhang et al., WWW 2024). Batches are large in the memory of small ones by gradient caching.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from recsys.config import Config
from recsys.data.pairs import ItemPairs, PairConfig, PairSampler
from recsys.data.split import Split
from recsys.embeddings.windows import batches
from recsys.errors import ConfigError, DataError
from recsys.rng import numpy_generator
from recsys.training.config import TrainingConfig
from recsys.training.contrastive import ContrastiveConfig, Temperature, nearest_strangers
from recsys.training.grad_cache import backward_in_chunks
from recsys.training.loop import Progress, train
from recsys.types import BoolArray, FloatArray, IntArray

Advance = Callable[[int, int, str], None]
"""(done, total, note)."""


class PairTrainingConfig(Config):
    pairs: PairConfig = PairConfig()
    loss: ContrastiveConfig = ContrastiveConfig()
    steps: Annotated[int, Field(ge=1)] = 50
    """Steps an epoch: between validations, and between minings of hard negatives."""
    chunk_tokens: Annotated[int, Field(ge=64)] = 2048
    """Padded tokens encoded at once: memory and speed. Where the model has dropout, also which random numbers an item gets."""
    gradient_caching: bool = True
    """Two passes in the memory of a chunk; false: one pass, a third faster, in the memory of a whole step (SmolLM2's last six
    layers: some 8 GB for 256 pairs)."""
    validation: Literal["retrieval", "pairs"] = "retrieval"
    """What stops it: retrieval of the items of the validation period, which the caller measures, or minus the loss on training pairs held out."""
    validation_pairs: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Share of the pairs that `validation: pairs` holds out."""
    training: TrainingConfig = TrainingConfig(epochs=20, patience=3, batch_size=256, learning_rate=2e-4, betas=(0.9, 0.999))
    """`batch_size` counts pairs a step."""

    @model_validator(mode="after")
    def _without_histories(self) -> Self:
        if self.training.sort_by_length:
            raise ValueError("sort_by_length orders windows of histories; here are none, leave it out")
        return self


@dataclass(frozen=True)
class Validation:
    """items: int64 (m,) item_nums, ascending. measure: their vectors, float32 (m, d) of length 1 -> a number, higher is better."""

    items: IntArray
    measure: Callable[[FloatArray], float]


@dataclass(frozen=True)
class PairTraining:
    """history: one dict an epoch.  seconds: of training, over all resumed runs.  pairs_per_second: of the steps of this run, NaN
    where none was left to do.  lower_seconds: of the states computed in this run, for `lower_items` items.
    validation_before: of the encoder as it began, by the same measure as `history`'s."""

    history: list[dict[str, float]]
    best_epoch: int
    capped: bool
    seconds: float
    peak_mb: float
    pairs: int
    parameters: int
    pairs_per_second: float
    lower_items: int
    lower_seconds: float
    validation_before: float


class Trainable(nn.Module):
    """What the optimiser moves and a checkpoint holds: the tuned parameters and the temperature, without the frozen rest.

    model: is put into training and evaluation mode with it.
    """

    def __init__(self, tuned: Sequence[nn.Parameter], temperature: Temperature, model: nn.Module) -> None:
        super().__init__()
        self.tuned = nn.ParameterList(tuned)
        self.temperature = temperature
        # In a tuple it is no submodule.
        self._model = (model,)

    def train(self, mode: bool = True) -> Self:
        self._model[0].train(mode)
        return super().train(mode)


class PairTuner(ABC):
    """An encoder as it trains: from item numbers to vectors. token_budget: of `encoded`."""

    trainable: Trainable
    token_budget: int

    @abstractmethod
    def tokens(self, item: int) -> int:
        """What an item takes of a chunk."""

    @abstractmethod
    def encode(self, item_nums: IntArray) -> Tensor:
        """float32 (m, ...), what `loss` is of, with a graph where one is wanted."""

    @abstractmethod
    def loss(self, encoded: Tensor, items: IntArray, anchors: Tensor, partners: Tensor, together: Tensor) -> Tensor:
        """Scalar. encoded: of `items`, int64 (M,) item_nums.  anchors, partners, together: see `recsys.training.contrastive.contrastive_loss`."""

    def vectors(self, item_nums: IntArray) -> Tensor:
        """float32 (m, d) of length 1, as things stand, without dropout: what is compared."""
        return self.encoded(item_nums)

    def chunks(self, item_nums: IntArray, tokens: int) -> list[IntArray]:
        """The items in an order of their own, cut where the padded size would pass `tokens`."""
        return [item_nums[rows] for rows in batches([self.tokens(item) for item in item_nums.tolist()], tokens)]

    @torch.no_grad()
    def encoded(self, item_nums: IntArray) -> Tensor:
        """As `encode`, of at least one item, in chunks, without dropout and graph."""
        training = self.trainable.training
        self.trainable.eval()
        chunks = self.chunks(item_nums, self.token_budget)
        place = np.empty(int(item_nums.max(initial=-1)) + 1, dtype=np.int64)
        place[item_nums] = np.arange(len(item_nums))
        found: Tensor | None = None
        for chunk in chunks:
            part = self.encode(chunk)
            found = part.new_empty(len(item_nums), *part.shape[1:]) if found is None else found
            found[place[chunk]] = part
        self.trainable.train(training)
        assert found is not None
        return found


class Examples:
    """Pairs to draw from, and what hard negatives and held-out pairs need.

    usable: bool (n_items,), the items that have a content.  keys: of all items' contents: items of one content have one vector.

    Raises:
        DataError: no pair of two usable items; the message ends with `hint`.
    """

    def __init__(self, config: PairTrainingConfig, split: Split, usable: BoolArray, keys: Sequence[bytes], seed: int, hint: str) -> None:
        self.pairs = ItemPairs.of_split(config.pairs, split)
        first_with: dict[bytes, int] = {}
        self._same = np.array([first_with.setdefault(key, number) for number, key in enumerate(keys)], dtype=np.int64)
        both = usable[self.pairs.left] & usable[self.pairs.right]
        if not both.any():
            raise DataError(f"none of {len(self.pairs)} pairs is of two items with a text; {hint}")
        held_out = np.zeros(len(self.pairs), dtype=np.bool_)
        if config.validation == "pairs":
            held_out = numpy_generator(seed, "held out pairs").random(len(self.pairs)) < config.validation_pairs
            self._held_out = PairSampler(config.pairs, self.pairs, both & held_out)
        self._sampler = PairSampler(config.pairs, self.pairs, both & ~held_out)
        self.pool = np.intersect1d(self.pairs.items(), np.flatnonzero(usable))
        self._config, self._seed = config, seed

    def generator(self, epoch: int) -> np.random.Generator:
        return numpy_generator(self._seed, "pairs", str(epoch))

    def draw(self, generator: np.random.Generator, strangers: IntArray | None) -> tuple[IntArray, IntArray, IntArray]:
        """Anchors and partners int64 (B,), and hard negatives int64 (B * k,)."""
        anchors, partners = self._sampler.draw(self._config.training.batch_size, generator)
        hard = self._config.loss.hard_negatives
        if hard is None or strangers is None:
            return anchors, partners, np.zeros(0, dtype=np.int64)
        rows = np.searchsorted(self.pool, anchors)
        columns = generator.integers(0, strangers.shape[1], (len(anchors), hard.per_anchor))
        return anchors, partners, strangers[rows[:, None], columns].ravel()

    def strangers(self, tuner: PairTuner) -> IntArray | None:
        """int64 (len(pool), depth) item_nums: each item's nearest that are no pair with it, as the vectors are now."""
        hard = self._config.loss.hard_negatives
        if hard is None:
            return None
        near = nearest_strangers(tuner.vectors(self.pool), self.pairs.matrix[self.pool][:, self.pool], hard.depth)
        strangers: IntArray = self.pool[near.numpy()]
        return strangers

    @torch.no_grad()
    def held_out_loss(self, tuner: PairTuner) -> float:
        """Of the same four batches at each call."""
        generator, losses = self.generator(0), []
        for _ in range(4):
            anchors, partners = self._held_out.draw(self._config.training.batch_size, generator)
            items, rows = np.unique(np.concatenate([anchors, partners]), return_inverse=True)
            losses.append(self.loss(tuner, items, rows[: len(anchors)], rows[len(anchors) :])(tuner.encoded(items)).item())
        return float(np.mean(losses))

    def loss(self, tuner: PairTuner, items: IntArray, anchors: IntArray, partners: IntArray) -> Callable[[Tensor], Tensor]:
        """The loss as a function of what `tuner` makes of `items`; anchors, partners: rows of `items`."""
        # Items of one content have one vector: to call them negatives of each other would teach nothing.
        same = self._same[items]
        together = torch.from_numpy(self.pairs.together(items) | (same[:, None] == same))
        first, second = torch.from_numpy(anchors), torch.from_numpy(partners)
        return lambda encoded: tuner.loss(encoded, items, first, second, together)


@dataclass
class _Speed:
    pairs: int = 0
    seconds: float = 0.0

    def per_second(self) -> float:
        return self.pairs / self.seconds if self.seconds else float("nan")


def train_on_pairs(
    config: PairTrainingConfig,
    tuner: PairTuner,
    examples: Examples,
    *,
    seed: int,
    fingerprint: str,
    lower: tuple[int, float] = (0, 0.0),
    checkpoint: Path | None = None,
    validation: Validation | None = None,
    progress: Progress | None = None,
    advance: Advance | None = None,
    checkpoint_seconds: float = 10.0,
) -> PairTraining:
    """Leaves `tuner` with the weights of its best validation, in evaluation mode.

    fingerprint: of all that decides the result.  lower: items and seconds of the states computed for it.  checkpoint: folder; a training
    found there continues.  validation: for `validation: retrieval`.  advance: told of steps.

    Raises:
        NonFiniteError: the loss.  ArtifactError: another training's checkpoint.
    """
    speed = _Speed()

    def run_epoch(optimiser: torch.optim.Optimizer, epoch: int) -> float:
        return _run_epoch(config, tuner, examples, optimiser, epoch, speed, advance)

    def validate() -> float:
        if config.validation == "pairs":
            return -examples.held_out_loss(tuner)
        assert validation is not None
        return validation.measure(tuner.vectors(validation.items).numpy())

    module = tuner.trainable.eval()
    before = validate()
    state = train(
        module,
        run_epoch,
        validate,
        config.training,
        seed=seed,
        fingerprint=fingerprint,
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
    )
    return PairTraining(
        history=state.history,
        best_epoch=state.best_epoch,
        capped=state.capped,
        seconds=state.seconds,
        peak_mb=state.peak_mb,
        pairs=len(examples.pairs),
        parameters=sum(p.numel() for p in module.parameters() if p.requires_grad),
        pairs_per_second=speed.per_second(),
        lower_items=lower[0],
        lower_seconds=lower[1],
        validation_before=before,
    )


def require_measure(config: PairTrainingConfig, validation: Validation | None) -> None:
    """Raises ConfigError: no measure where one is needed; before anything is computed."""
    if config.validation == "retrieval" and validation is None:
        raise ConfigError("validation: retrieval needs a measure; give one, or set validation: pairs")


def counted(advance: Advance | None, note: str) -> Callable[[int, int], None] | None:
    return None if advance is None else lambda done, total: advance(done, total, note)


def _run_epoch(
    config: PairTrainingConfig, tuner: PairTuner, examples: Examples, optimiser: torch.optim.Optimizer, epoch: int, speed: _Speed, advance: Advance | None
) -> float:
    generator, strangers, total = examples.generator(epoch), examples.strangers(tuner), 0.0
    for step in range(config.steps):
        started = time.perf_counter()
        anchors, partners, hard = examples.draw(generator, strangers)
        distinct = np.unique(np.concatenate([anchors, partners, hard]))
        chunks = tuner.chunks(distinct, config.chunk_tokens)
        # Rows stand in the order in which the chunks come.
        items = np.concatenate(chunks)
        row_of = np.empty(int(distinct[-1]) + 1, dtype=np.int64)
        row_of[items] = np.arange(len(items))
        optimiser.zero_grad()
        loss = backward_in_chunks(tuner.encode, chunks, examples.loss(tuner, items, row_of[anchors], row_of[partners]), cached=config.gradient_caching)
        optimiser.step()
        total += loss
        speed.pairs, speed.seconds = speed.pairs + len(anchors), speed.seconds + time.perf_counter() - started
        if advance is not None:
            advance(step + 1, config.steps, f"epoch {epoch} loss {total / (step + 1):.4f} {speed.per_second():.1f} pairs/s")
    return total / config.steps
