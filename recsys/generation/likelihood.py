"""`LikelihoodRanker`: how likely a local model finds each of some given answers; for small models, which rank better than they write.

It is a Generator, so that its answers are cached, imported and counted as any other's: the text of an answer is a JSON list of
log-probabilities, one an option.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from transformers.cache_utils import get_layer_types_and_kwargs

from recsys.config import Config, digest_of
from recsys.errors import ConfigError, NonFiniteError
from recsys.generation.chat import ChatTokens, Template
from recsys.generation.formats import UnusableAnswerError
from recsys.generation.generator import Generation, OnDone
from recsys.generation.prompt import Prompt
from recsys.weights.find import find_weights
from recsys.weights.load import load_model

VERSION = 1
"""Raised when the same config gives other numbers."""


class LikelihoodRankerConfig(Config):
    """`batch_tokens` is speed and memory only; all else decides the numbers."""

    kind: Literal["likelihood"] = "likelihood"
    model: str
    """As of a local generator."""
    options: tuple[Annotated[str, Field(min_length=1)], ...]
    """The answers to be compared, as the model would write them."""
    template: Template = "chat"
    template_options: dict[str, str | bool | int] = Field(default_factory=dict)
    opening: str = ""
    """What the answer begins with, before each option, e.g. "Labels: "."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    batch_tokens: Annotated[int, Field(ge=1)] = 2048

    @model_validator(mode="after")
    def _two_or_more(self) -> Self:
        if len(set(self.options)) != len(self.options) or len(self.options) < 2:
            raise ValueError(f"options: two or more, all different, got {list(self.options)[:5]}")
        return self

    def identity(self) -> dict[str, Any]:
        """Everything that can move a number, from the files alone: no model is loaded. Raises ConfigError: weights not found."""
        weights = find_weights(self.model)
        revision = weights.revision()
        return {
            **self.model_dump(mode="json", exclude={"batch_tokens"}),
            "version": VERSION,
            "model": self.model.rstrip("/").rsplit("/", 1)[-1] if self.model.startswith((".", "/")) else self.model,
            "revision": revision,
            "tokenizer": weights.tokenizer_revision() or revision,
        }

    @property
    def generator_id(self) -> str:
        return digest_of(self.identity())[:16]


class LikelihoodRanker:
    """A frozen model. One pass a prompt: all options stand behind it side by side, and see the prompt and themselves alone."""

    def __init__(self, config: LikelihoodRankerConfig, generator_id: str, model: Any, tokenizer: Any) -> None:
        """Raises ConfigError: no chat template, an option without tokens, or a model whose layers do not all see the whole prompt."""
        kinds = set(get_layer_types_and_kwargs(model.config.get_text_config(decoder=True))[0]) - {"full_attention"}
        if kinds:
            raise ConfigError(f"{type(model).__name__} has {', '.join(sorted(kinds))}: options are compared by models of full attention only")
        self.config = config
        self._id = generator_id
        self._model = model.eval().requires_grad_(False)
        self._chat = ChatTokens(tokenizer, config.template, config.template_options)
        self._opening = _ids(tokenizer, config.opening) if config.opening else []
        self._options = [_ids(tokenizer, option) for option in config.options]
        if empty := [option for option, ids in zip(config.options, self._options, strict=True) if not ids]:
            raise ConfigError(f"option {empty[0]!r} has no tokens")
        self._positions = int(getattr(model.config, "max_position_embeddings", 0) or 0)

    @classmethod
    def load(cls, config: LikelihoodRankerConfig) -> Self:
        """Raises ConfigError: weights not found, or not those of a causal language model."""
        model, tokenizer = load_model(find_weights(config.model), config.dtype, head=True)
        return cls(config, config.generator_id, model, tokenizer)

    @property
    def generator_id(self) -> str:
        return self._id

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], *, on_done: OnDone | None = None) -> list[Generation]:
        """See `Generator`. A prompt that leaves no room for the options in the model's positions has `finish` "error"."""
        answers: dict[int, Generation] = {}

        def done(number: int, generation: Generation) -> None:
            answers[number] = generation
            if on_done is not None:
                on_done(number, generation)

        room = len(self._opening) + max(map(len, self._options))
        fitting: list[tuple[int, list[int]]] = []
        for number, ids in enumerate(self._chat.encode(prompts)):
            if not ids or (self._positions and len(ids) + room > self._positions):
                reason = f"{len(ids)} tokens and {room} of the options; the model has {self._positions} positions, and a prompt needs one: shorten the text"
                done(number, Generation("", "error", prompt_tokens=len(ids), error=reason))
            else:
                fitting.append((number, [*ids, *self._opening]))
        fitting.sort(key=lambda entry: -len(entry[1]))
        behind = sum(map(len, self._options))
        while fitting:
            rows = max(1, self.config.batch_tokens // (len(fitting[0][1]) + behind))
            batch, fitting = fitting[:rows], fitting[rows:]
            found = self._scores([ids for _, ids in batch])
            for (number, ids), row in zip(batch, found.tolist(), strict=True):
                text = json.dumps([round(value, 5) for value in row])
                done(number, Generation(text, "stop", len(ids), 0, max(row)))
        return [answers[number] for number in range(len(prompts))]

    def _scores(self, prompts: Sequence[list[int]]) -> Tensor:
        """float32 (B, options): sums of log-probabilities. Prompts are padded on the left, so that the options stand in the same columns."""
        longest, rows = max(map(len, prompts)), len(prompts)
        flat = torch.tensor([token for option in self._options for token in option])
        owner = torch.tensor([number for number, option in enumerate(self._options) for _ in option])
        depth = torch.tensor([place for option in self._options for place in range(len(option))])
        ids = torch.zeros(rows, longest + len(flat), dtype=torch.int64)
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) : longest] = torch.tensor(prompt)
        ids[:, longest:] = flat
        begins = (longest - lengths)[:, None]
        positions = torch.cat([(torch.arange(longest) - begins).clamp(min=0), lengths[:, None] + depth], dim=1)
        hidden = self._mask(begins, owner, depth, longest)
        # The prompt's last token foretells every option's first; an option's token its next.
        columns = torch.cat([torch.tensor([longest - 1]), torch.arange(longest, longest + len(flat))])
        device = self._model.device
        mask = torch.zeros(hidden.shape, dtype=self._model.dtype).masked_fill(hidden, torch.finfo(self._model.dtype).min)
        out = self._model(
            input_ids=ids.to(device), attention_mask=mask.to(device), position_ids=positions.to(device), use_cache=False, logits_to_keep=columns.to(device)
        )
        logits = out.logits.float().cpu()
        before = torch.where(depth == 0, 0, torch.arange(len(flat)))
        gains = logits[:, before].gather(2, flat.expand(rows, -1)[:, :, None]).squeeze(2) - logits[:, before].logsumexp(2)
        if not torch.isfinite(gains).all():
            raise NonFiniteError(f"the model's logits hold NaN or infinity in {int((~torch.isfinite(gains)).any(1).sum())} of {rows} rows; try dtype float32")
        return torch.zeros(rows, len(self._options)).index_add(1, owner, gains)

    @staticmethod
    def _mask(begins: Tensor, owner: Tensor, depth: Tensor, longest: int) -> Tensor:
        """bool (B, 1, T, T): True where a query (third axis) may not look at a key (last axis)."""
        total = longest + len(owner)
        columns = torch.arange(total)
        seen = columns[:, None] >= columns[None, :]
        own = (owner[:, None] == owner[None, :]) & (depth[:, None] >= depth[None, :])
        seen[longest:, longest:] = own
        allowed = seen[None] & (columns[None, None, :] >= begins[:, :, None])
        # A padded column looks at itself: a row of nothing would be NaN.
        return ~(allowed | torch.eye(total, dtype=torch.bool)[None])[:, None]


def option_scores(text: str, options: int) -> list[float]:
    """The numbers of an answer. Raises UnusableAnswerError: a text that is not so many finite numbers."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or len(found) != options or not all(isinstance(value, int | float) and math.isfinite(value) for value in found):
        raise UnusableAnswerError(f"not {options} numbers")
    return [float(value) for value in found]


def _ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found
