"""Training of a joint encoder on pairs of items: NoteLLM-2 (Zhang et al., KDD 2025, arXiv 2405.16789; see `joint_bridge`, `joint_loss`).

See `recsys.embeddings.pair_training`. The vision model is frozen: its features come as a table. So are the layers of the language model
below the picture: the states of their words are computed once. Trained are the bridge and, by `tuning`, the layers above.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from recsys.config import digest_of
from recsys.data.split import Split
from recsys.embeddings.adapter import LayersTuning, LoraTuning, Tuning, make_trainable
from recsys.embeddings.content import Content
from recsys.embeddings.joint import JointEncoder, JointEncoderConfig, words_space
from recsys.embeddings.joint_loss import WEIGHTS, joint_loss, stacked, unstacked
from recsys.embeddings.layers import layers_of
from recsys.embeddings.lower_states import LowerStates, StateBatch
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
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.windows import Window, batches
from recsys.rng import derive_seed, numpy_generator
from recsys.training.contrastive import Temperature
from recsys.training.loop import Progress
from recsys.types import BoolArray, FloatArray, IntArray

OWN: Final = "own"
ABSENT: Final = "absent"
SWAPPED: Final = "swapped"
ALONE: Final = "alone"
"""What an item's vector is made of: text and picture; text without its picture; text and another item's picture; picture without the text."""


class JointTrainingConfig(PairTrainingConfig):
    encoder: JointEncoderConfig
    """What is trained. Without `two_embeddings` there is no visual loss; without `late_fusion` no gate: the ablations."""
    tuning: Tuning | None = LoraTuning()
    """Of the layers of the language model that see pictures (`encoder.layers`); null: the bridge learns alone."""
    weights: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(ge=0)]] = WEIGHTS
    """Of the multimodal and the visual loss."""

    @model_validator(mode="after")
    def _untrained(self) -> Self:
        if self.encoder.adapter is not None:
            raise ValueError(f"encoder {self.encoder.name!r}: what is trained has no adapter yet")
        return self


@dataclass(frozen=True)
class TrainedJoint(PairTraining):
    """encoder: with the weights of the best validation.  trained: of its language model, as `save_joint_adapter` wants it; None: left as it was.

    tables: by `OWN`, `ABSENT`, `SWAPPED`, and with two embeddings `ALONE`: float32 (n_items, d), of length 1, 0 for an item without text, in `ALONE`
    for one without picture. `OWN` is what the encoder gives, but for bf16 in the states.  base: space before.
    """

    encoder: JointEncoder
    trained: dict[str, Tensor] | None
    layers: int
    tables: dict[str, FloatArray]
    base: EmbeddingSpace


def train_joint(
    config: JointTrainingConfig,
    split: Split,
    texts: Sequence[str],
    images: FloatArray,
    *,
    seed: int,
    states: Path,
    checkpoint: Path | None = None,
    validation: Validation | None = None,
    progress: Progress | None = None,
    advance: Advance | None = None,
    checkpoint_seconds: float = 10.0,
) -> TrainedJoint:
    """Learn from `split.train` alone.

    texts: of all items, in the order of `split.items`; an item without one takes no part.  images: float32 (n_items, c), by an image encoder of
    `config.encoder.image`; 0 for an item without a picture.  The others: see `recsys.embeddings.fine_tuning.fine_tune`, which raises the same.
    """
    if len(texts) != split.n_items or len(images) != split.n_items:
        raise ValueError(f"{len(texts)} texts and {len(images)} pictures for {split.n_items} items")
    require_measure(config, validation)
    encoder = JointEncoder.untrained(config.encoder, seed=derive_seed(seed, "bridge"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        tuner = _Tuner(config, encoder, texts, images, states)
    started = time.perf_counter()
    computed = tuner.store.fill([Content(text) for text in texts if text], counted(advance, "lower states"))
    keys = [_key(text, image) for text, image in zip(texts, images, strict=True)]
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
    trained = {name: parameter.detach().clone() for name, parameter in tuner.named.items()} if config.tuning else None
    return TrainedJoint(**vars(training), encoder=encoder, trained=trained, layers=tuner.layers, tables=tuner.tables(seed), base=encoder.space)


class _Words:
    """A joint encoder as `LowerStates` sees it."""

    def __init__(self, encoder: JointEncoder) -> None:
        self.model, self.dim = encoder.text, encoder.dim
        self.space = words_space(encoder.config)
        self._encoder = encoder

    def windows(self, texts: Sequence[str]) -> list[Window]:
        return self._encoder.windows(texts)

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        return batches(lengths, self._encoder.config.token_budget)


class _Tuner(PairTuner):
    """From the stored states of the words up. What it encodes, (m, k, d), is `stacked` of length 1."""

    def __init__(self, config: JointTrainingConfig, encoder: JointEncoder, texts: Sequence[str], images: FloatArray, states: Path) -> None:
        count = len(layers_of(encoder.text)[1])
        self.layers = config.encoder.layers or count
        self.named: dict[str, nn.Parameter] = make_trainable(encoder.text, config.tuning, self.layers) if config.tuning else {}
        self.model = encoder.model
        if isinstance(config.tuning, LayersTuning):
            self.model.upper.float()
        self.store = LowerStates(states, _Words(encoder), count - self.layers)
        self.temperature = Temperature(config.loss)
        self.trainable = Trainable([*self.named.values(), *self.model.bridge.parameters()], self.temperature, self.model)
        self.token_budget = config.encoder.token_budget
        self.has_text: BoolArray = np.array([bool(text) for text in texts], dtype=np.bool_)
        self._see(images)
        self._config, self._contents, self._images = config, [Content(text) for text in texts], images
        self._mixed = config.encoder.dtype == "bfloat16"

    def _see(self, images: FloatArray) -> None:
        self.images, self.pictured = torch.from_numpy(images), torch.from_numpy(images.any(axis=1))

    def tokens(self, item: int) -> int:
        return sum(len(window.states) for window in self.store.of(self._contents[item]))

    def encode(self, item_nums: IntArray) -> Tensor:
        windows = [(row, window) for row, item in enumerate(item_nums.tolist()) for window in self.store.of(self._contents[item])]
        batch = StateBatch.of([window for _, window in windows])
        owners = torch.tensor([row for row, _ in windows])
        items = torch.from_numpy(item_nums)[owners]
        with torch.autocast("cpu", torch.bfloat16) if self._mixed else contextlib.nullcontext():
            states = self.model(batch.states if self._mixed else batch.states.float(), batch.seen, self.images[items], self.pictured[items])
        vectors = stacked(states.multimodal, states.visual).float()
        if len(windows) > len(item_nums):
            weights = torch.tensor([float(window.weight) for _, window in windows])
            vectors = vectors.new_zeros(len(item_nums), *vectors.shape[1:]).index_add(0, owners, vectors * weights[:, None, None])
        return F.normalize(vectors, dim=2)

    def vectors(self, item_nums: IntArray) -> Tensor:
        return self.encoded(item_nums)[:, 0]

    def loss(self, encoded: Tensor, items: IntArray, anchors: Tensor, partners: Tensor, together: Tensor) -> Tensor:
        pictured, config = self.pictured[torch.from_numpy(items)], self._config
        return joint_loss(
            *unstacked(encoded), pictured, anchors, partners, together, self.temperature(), weights=config.weights, symmetric=config.loss.symmetric
        )

    def tables(self, seed: int) -> dict[str, FloatArray]:
        """See `TrainedJoint`."""
        with_text, found = np.flatnonzero(self.has_text), {}
        for name, images in ((OWN, self._images), (ABSENT, np.zeros_like(self._images)), (SWAPPED, swapped(self._images, seed))):
            self._see(images)
            multimodal, visual = unstacked(self.encoded(with_text))
            found[name] = _spread(multimodal, with_text, len(images))
            if name == OWN and visual is not None:
                found[ALONE] = np.where(self._images.any(axis=1, keepdims=True), _spread(visual, with_text, len(images)), np.float32(0))
        self._see(self._images)
        return found


def swapped(images: FloatArray, seed: int) -> FloatArray:
    """float32 (n, c): each item with a picture has that of another, drawn by `seed`; the others have none still."""
    order = numpy_generator(seed, "swapped pictures").permutation(np.flatnonzero(images.any(axis=1)))
    found = images.copy()
    found[order] = images[np.roll(order, 1)]
    return found


def _spread(vectors: Tensor, rows: IntArray, count: int) -> FloatArray:
    found = np.zeros((count, vectors.shape[1]), dtype=np.float32)
    found[rows] = vectors.numpy()
    return found


def _key(text: str, image: FloatArray) -> bytes:
    """Of what the vector of an item is made of."""
    return Content(text, image.tobytes() if image.any() else None).key
