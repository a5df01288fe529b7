"""Fine-tuning of a text encoder to the domain: items that training brings together come to lie side by side.

See `recsys.embeddings.pair_training`; of the encoder the last layers alone are run: the states below them are computed once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from recsys.config import digest_of
from recsys.data.split import Split
from recsys.embeddings.adapter import LayersTuning, LoraTuning, Tuning, make_trainable
from recsys.embeddings.content import Content
from recsys.embeddings.layers import UpperHalf, first_of_last
from recsys.embeddings.lower_states import LowerStates, StateBatch, mask_of
from recsys.embeddings.pair_training import (
    Advance,
    Examples,
    PairTraining,
    PairTrainingConfig,
    PairTuner,
    Trainable,
    Validation,
    counted,
    require_measure,
    train_on_pairs,
)
from recsys.embeddings.pooling import pool
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.text import HASHED, TextEncoder, TextEncoderConfig
from recsys.rng import derive_seed
from recsys.training.contrastive import Temperature, contrastive_loss
from recsys.training.loop import Progress
from recsys.types import BoolArray, FloatArray, IntArray


class FineTuningConfig(PairTrainingConfig):
    encoder: TextEncoderConfig
    """What is tuned; its pooling, attention and dtype are those of the training too."""
    layers: Annotated[int, Field(ge=1)] = 6
    """How many of the last layers are run, and changed, in training."""
    tuning: Tuning = LoraTuning()

    @model_validator(mode="after")
    def _of_a_plain_model(self) -> Self:
        encoder = self.encoder
        if encoder.model == HASHED or encoder.adapter is not None or encoder.layer != -1 or not encoder.normalise:
            raise ValueError(f"encoder {encoder.name!r}: what is fine-tuned gives unit vectors of the last state (layer: -1), has weights and no adapter yet")
        return self


@dataclass(frozen=True)
class FineTuned(PairTraining):
    """trained: what `save_adapter` writes, of the best validation.  vectors: float32 (n_items, d), of length 1, 0 for an item
    without text; what the encoder with the adapter gives, but for bf16 in the states.  base: space before."""

    trained: dict[str, Tensor]
    vectors: FloatArray
    base: EmbeddingSpace


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
    require_measure(config, validation)
    encoder = TextEncoder.load(config.encoder)
    assert isinstance(encoder, TextEncoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        tuner = _Tuner(config, encoder, contents, states)
    started = time.perf_counter()
    computed = tuner.store.fill([content for content in contents if content], counted(advance, "lower states"))
    keys = [content.key for content in contents]
    training = train_on_pairs(
        config,
        tuner,
        Examples(config, split, tuner.has_text, keys, seed, f"look at the template {config.encoder.template!r}"),
        seed=seed,
        fingerprint=digest_of([config.digest(), split.digest, [key.hex() for key in keys], encoder.space.space_id, seed, torch.__version__]),
        lower=(computed, time.perf_counter() - started),
        checkpoint=checkpoint,
        validation=validation,
        progress=progress,
        advance=advance,
        checkpoint_seconds=checkpoint_seconds,
    )
    vectors = np.zeros((split.n_items, encoder.dim), dtype=np.float32)
    with_text = np.flatnonzero(tuner.has_text)
    vectors[with_text] = tuner.vectors(with_text).numpy()
    trained = {name: parameter.detach().clone() for name, parameter in tuner.named.items()}
    return FineTuned(**vars(training), trained=trained, vectors=vectors, base=encoder.space)


class _Tuner(PairTuner):
    """From the stored states up."""

    def __init__(self, config: FineTuningConfig, encoder: TextEncoder, contents: Sequence[Content], states: Path) -> None:
        first = first_of_last(encoder.model, config.layers)
        self.named = make_trainable(encoder.model, config.tuning, config.layers)
        self.upper = UpperHalf(encoder.model, first)
        if isinstance(config.tuning, LayersTuning):
            # Float32 as the trained weights are; where the encoder is bf16, the products still are.
            self.upper.float()
        self.store = LowerStates(states, encoder, first)
        self.temperature = Temperature(config.loss)
        self.trainable = Trainable(list(self.named.values()), self.temperature, self.upper)
        self.token_budget = config.encoder.token_budget
        self.has_text: BoolArray = np.array([bool(content) for content in contents], dtype=np.bool_)
        self._config, self._encoder, self._contents = config, encoder, contents
        self._mixed = config.encoder.dtype == "bfloat16"

    def tokens(self, item: int) -> int:
        return sum(len(window.states) for window in self.store.of(self._contents[item]))

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

    def loss(self, encoded: Tensor, items: IntArray, anchors: Tensor, partners: Tensor, together: Tensor) -> Tensor:
        return contrastive_loss(encoded, anchors, partners, together, self.temperature(), symmetric=self._config.loss.symmetric)
