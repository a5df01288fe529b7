"""Fine-tuning of a text encoder to the domain: items that training brings together come to lie side by side.

Contrastive training on pairs of items (`recsys.data.pairs`), as NoteLLM does it (Zhang et al., WWW 2024), of the last layers
alone: the states below them are computed once. Batches are large in the memory of small ones by gradient caching.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from recsys.config import Config, digest_of
from recsys.data.pairs import ItemPairs, PairConfig, PairSampler
from recsys.data.split import Split
from recsys.embeddings.adapter import LayersTuning, LoraTuning, Tuning, make_trainable
from recsys.embeddings.content import Content
from recsys.embeddings.layers import UpperHalf, first_of_last
from recsys.embeddings.lower_states import LowerStates, StateBatch, mask_of
from recsys.embeddings.pooling import pool
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.text import HASHED, TextEncoder, TextEncoderConfig
from recsys.embeddings.windows import batches
from recsys.errors import ConfigError, DataError
from recsys.rng import derive_seed, numpy_generator
from recsys.training.config import TrainingConfig
from recsys.training.contrastive import ContrastiveConfig, Temperature, contrastive_loss, nearest_strangers
from recsys.training.grad_cache import backward_in_chunks
from recsys.training.loop import Progress, train
from recsys.types import BoolArray, FloatArray, IntArray

Advance = Callable[[int, int, str], None]
"""(done, total, note)."""


class FineTuningConfig(Config):
    encoder: TextEncoderConfig
    """What is tuned; its pooling, attention and dtype are those of the training too."""
    layers: Annotated[int, Field(ge=1)] = 6
    """How many of the last layers are run, and changed, in training."""
    tuning: Tuning = LoraTuning()
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
    def _of_a_plain_model(self) -> Self:
        encoder = self.encoder
        if encoder.model == HASHED or encoder.adapter is not None or encoder.layer != -1 or not encoder.normalise:
            raise ValueError(f"encoder {encoder.name!r}: what is fine-tuned gives unit vectors of the last state (layer: -1), has weights and no adapter yet")
        if self.training.sort_by_length:
            raise ValueError("sort_by_length orders windows of histories; here are none, leave it out")
        return self


@dataclass(frozen=True)
class Validation:
    """items: int64 (m,) item_nums, ascending. measure: their vectors, float32 (m, d) of length 1 -> a number, higher is better."""

    items: IntArray
    measure: Callable[[FloatArray], float]


@dataclass(frozen=True)
class FineTuned:
    """trained: what `save_adapter` writes, of the best validation.  vectors: float32 (n_items, d), of length 1, 0 for an item
    without text; what the encoder with the adapter gives, but for bf16 in the states.  base: space before.
    history: one dict an epoch.  seconds: of training, over all resumed runs.  pairs_per_second: of the steps of this run, NaN
    where none was left to do.  lower_seconds: of the states computed in this run, for `lower_items` items.
    validation_before: of the frozen model, by the same measure as `history`'s."""

    trained: dict[str, Tensor]
    vectors: FloatArray
    base: EmbeddingSpace
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


def fine_tune(
    config: FineTuningConfig,
    split: Split,
    contents: Sequence[Content],
    *,
    seed: int,
    states: Path,
    checkpoint: Path | None = None,
    validation: Validation | None = None,
    progress: Progress | None = None,
    advance: Advance | None = None,
    checkpoint_seconds: float = 10.0,
) -> FineTuned:
    """Learn from `split.train` alone.

    contents: of all items, in the order of `split.items`; an empty one takes no part.  states: root of the cache of lower
    states.  checkpoint: folder; a training found there continues.  validation: for `validation: retrieval`.
    advance: told of lower states and steps.

    Raises:
        ConfigError: a model that cannot be tuned, or no `validation` where it is needed.  DataError: no pairs.
        NonFiniteError: the loss.  ArtifactError: another training's checkpoint.
    """
    if len(contents) != split.n_items:
        raise ValueError(f"{len(contents)} contents for {split.n_items} items")
    if config.validation == "retrieval" and validation is None:
        raise ConfigError("validation: retrieval needs a measure; give one, or set validation: pairs")
    encoder = TextEncoder.load(config.encoder)
    assert isinstance(encoder, TextEncoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        tuner = _Tuner(config, encoder, contents, states)
    started = time.perf_counter()
    computed = tuner.store.fill([content for content in contents if content], _counted(advance, "lower states"))
    lower_seconds = time.perf_counter() - started
    examples = _Examples(config, split, contents, seed)
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
        fingerprint=digest_of([config.digest(), split.digest, [content.key.hex() for content in contents], encoder.space.space_id, seed, torch.__version__]),
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
    )
    vectors = np.zeros((split.n_items, encoder.dim), dtype=np.float32)
    with_text = np.flatnonzero(tuner.has_text)
    vectors[with_text] = tuner.vectors(with_text).numpy()
    return FineTuned(
        trained={name: parameter.detach().clone() for name, parameter in tuner.named.items()},
        vectors=vectors,
        base=encoder.space,
        history=state.history,
        best_epoch=state.best_epoch,
        capped=state.capped,
        seconds=state.seconds,
        peak_mb=state.peak_mb,
        pairs=len(examples.pairs),
        parameters=sum(p.numel() for p in module.parameters() if p.requires_grad),
        pairs_per_second=speed.per_second(),
        lower_items=computed,
        lower_seconds=lower_seconds,
        validation_before=before,
    )


class _Trainable(nn.Module):
    """What the optimiser moves and a checkpoint holds: the tuned parameters and the temperature, without the frozen rest."""

    def __init__(self, tuned: Sequence[nn.Parameter], temperature: Temperature, upper: UpperHalf) -> None:
        super().__init__()
        self.tuned = nn.ParameterList(tuned)
        self.temperature = temperature
        # In a tuple it is no submodule.
        self._upper = (upper,)

    def train(self, mode: bool = True) -> Self:
        self._upper[0].train(mode)
        return super().train(mode)


class _Tuner:
    """The encoder as it trains: item numbers to vectors, from the stored states up."""

    def __init__(self, config: FineTuningConfig, encoder: TextEncoder, contents: Sequence[Content], states: Path) -> None:
        first = first_of_last(encoder.model, config.layers)
        self.named = make_trainable(encoder.model, config.tuning, config.layers)
        self.upper = UpperHalf(encoder.model, first)
        if isinstance(config.tuning, LayersTuning):
            # Float32 as the trained weights are; where the encoder is bf16, the products still are.
            self.upper.float()
        self.store = LowerStates(states, encoder, first)
        self.temperature = Temperature(config.loss)
        self.trainable = _Trainable(list(self.named.values()), self.temperature, self.upper)
        self.has_text: BoolArray = np.array([bool(content) for content in contents], dtype=np.bool_)
        self._config, self._encoder, self._contents = config, encoder, contents
        self._mixed = config.encoder.dtype == "bfloat16"

    def chunks(self, item_nums: IntArray, tokens: int) -> list[IntArray]:
        """The items in an order of their own, cut where the padded size would pass `tokens`."""
        lengths = [sum(len(window.states) for window in self.store.of(self._contents[item])) for item in item_nums.tolist()]
        return [item_nums[rows] for rows in batches(lengths, tokens)]

    def encode(self, item_nums: IntArray) -> Tensor:
        """float32 (m, d) of length 1, with a graph where one is wanted."""
        windows = [(row, window) for row, item in enumerate(item_nums.tolist()) for window in self.store.of(self._contents[item])]
        batch = StateBatch.of([window for _, window in windows])
        with torch.autocast("cpu", torch.bfloat16) if self._mixed else contextlib.nullcontext():
            states = batch.states if self._mixed else batch.states.float()
            options = {"use_cache": False} if self._encoder.space.attention == "causal" else {}
            hidden = self.upper(states, **mask_of(self._encoder, batch), **options)
        pooled = pool(hidden, None if bool(batch.pooled.all()) else batch.pooled, self._config.encoder.pooling)
        if len(windows) > len(item_nums):
            weights = torch.tensor([float(window.weight) for _, window in windows])
            owners = torch.tensor([row for row, _ in windows])
            pooled = pooled.new_zeros(len(item_nums), pooled.shape[1]).index_add(0, owners, pooled * weights[:, None])
        return F.normalize(pooled, dim=1)

    @torch.no_grad()
    def vectors(self, item_nums: IntArray) -> Tensor:
        """float32 (m, d) as things stand, without dropout."""
        training = self.upper.training
        self.upper.eval()
        chunks = self.chunks(item_nums, self._config.encoder.token_budget)
        found = torch.empty(len(item_nums), self._encoder.dim)
        place = np.empty(int(item_nums.max(initial=-1)) + 1, dtype=np.int64)
        place[item_nums] = np.arange(len(item_nums))
        for chunk in chunks:
            found[place[chunk]] = self.encode(chunk)
        self.upper.train(training)
        return found


class _Examples:
    """Pairs to draw from, and what hard negatives and held-out pairs need."""

    def __init__(self, config: FineTuningConfig, split: Split, contents: Sequence[Content], seed: int) -> None:
        self.pairs = ItemPairs.of_split(config.pairs, split)
        has_text: BoolArray = np.array([bool(content) for content in contents], dtype=np.bool_)
        first_with: dict[bytes, int] = {}
        self._same = np.array([first_with.setdefault(content.key, number) for number, content in enumerate(contents)], dtype=np.int64)
        usable = has_text[self.pairs.left] & has_text[self.pairs.right]
        if not usable.any():
            raise DataError(f"none of {len(self.pairs)} pairs is of two items with a text; look at the template {config.encoder.template!r}")
        held_out = np.zeros(len(self.pairs), dtype=np.bool_)
        if config.validation == "pairs":
            held_out = numpy_generator(seed, "held out pairs").random(len(self.pairs)) < config.validation_pairs
            self._held_out = PairSampler(config.pairs, self.pairs, usable & held_out)
        self._sampler = PairSampler(config.pairs, self.pairs, usable & ~held_out)
        self.pool = np.intersect1d(self.pairs.items(), np.flatnonzero(has_text))
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

    def strangers(self, tuner: _Tuner) -> IntArray | None:
        """int64 (len(pool), depth) item_nums: each item's nearest that are no pair with it, as the vectors are now."""
        hard = self._config.loss.hard_negatives
        if hard is None:
            return None
        near = nearest_strangers(tuner.vectors(self.pool), self.pairs.matrix[self.pool][:, self.pool], hard.depth)
        strangers: IntArray = self.pool[near.numpy()]
        return strangers

    @torch.no_grad()
    def held_out_loss(self, tuner: _Tuner) -> float:
        """Of the same four batches at each call."""
        generator, losses = self.generator(0), []
        for _ in range(4):
            anchors, partners = self._held_out.draw(self._config.training.batch_size, generator)
            items, rows = np.unique(np.concatenate([anchors, partners]), return_inverse=True)
            losses.append(self.loss(tuner, items, rows[: len(anchors)], rows[len(anchors) :])(tuner.vectors(items)).item())
        return float(np.mean(losses))

    def loss(self, tuner: _Tuner, items: IntArray, anchors: IntArray, partners: IntArray) -> Callable[[Tensor], Tensor]:
        """The loss as a function of the vectors of `items`; anchors, partners: rows of `items`."""
        # Items of one text have one vector: to call them negatives of each other would teach nothing.
        same = self._same[items]
        together = torch.from_numpy(self.pairs.together(items) | (same[:, None] == same))
        first, second = torch.from_numpy(anchors), torch.from_numpy(partners)
        return lambda vectors: contrastive_loss(vectors, first, second, together, tuner.temperature(), symmetric=self._config.loss.symmetric)


@dataclass
class _Speed:
    pairs: int = 0
    seconds: float = 0.0

    def per_second(self) -> float:
        return self.pairs / self.seconds if self.seconds else float("nan")


def _run_epoch(
    config: FineTuningConfig, tuner: _Tuner, examples: _Examples, optimiser: torch.optim.Optimizer, epoch: int, speed: _Speed, advance: Advance | None
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


def _counted(advance: Advance | None, note: str) -> Callable[[int, int], None] | None:
    return None if advance is None else lambda done, total: advance(done, total, note)
