"""`FrozenLLM`: a language model that alignment reads through and never moves."""

from __future__ import annotations

import hashlib
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers.cache_utils import get_layer_types_and_kwargs

from recsys.alignment.config import ProjectionConfig
from recsys.embeddings.first_layers import final_norm_of, load_decoder, read_vectors, token_scale, without_tokens
from recsys.errors import ConfigError
from recsys.weights.load import DTYPES

_PROBES = 6


class FrozenLLM:
    """A causal language model, or its first layers: in eval mode, without gradients, and no part of any module that trains.

    model: with its head, taken apart in place.  dtype: of its layers; embeddings, last norm and head stay float32.
    tokenizer: as it came with it.

    Raises:
        ConfigError: layers that do not see the whole prompt, or logits that are bent after the head.
    """

    def __init__(self, model: Any, tokenizer: Any, dtype: str = "float32") -> None:
        model.eval().requires_grad_(False)
        self.body: Any = model.base_model
        kinds = set(get_layer_types_and_kwargs(self.body.config.get_text_config(decoder=True))[0]) - {"full_attention"}
        if kinds or getattr(self.body.config, "final_logit_softcapping", None):
            raise ConfigError(f"{type(model).__name__} has {', '.join(sorted(kinds)) or 'a cap on its logits'}: titles need full attention and a plain head")
        self.tokenizer, self.width, self.scale = tokenizer, int(self.body.config.hidden_size), token_scale(self.body)
        embeddings = self.body.get_input_embeddings()
        with torch.inference_mode(False), torch.no_grad():
            self._tokens: Tensor = embeddings(torch.arange(embeddings.weight.shape[0])).detach().float().clone()
        self.outputs: Tensor = model.get_output_embeddings().weight.detach().float()
        name = final_norm_of(self.body)
        self._norm: nn.Module = getattr(self.body, name)
        # The state before the last norm is what the lens and the catalogue read.
        setattr(self.body, name, nn.Identity())
        without_tokens(self.body)
        self.body.to(DTYPES[dtype])
        self._dtype = DTYPES[dtype]
        self.positions = int(getattr(self.body.config, "max_position_embeddings", 0) or 0)
        self.digest = self._digest()
        """sha256 of its weights."""
        self._answer = self._probed()

    @classmethod
    def load(cls, config: ProjectionConfig, seed: int = 0) -> Self:
        """seed: of `start: random`. Raises ConfigError: weights not found, or fewer layers than asked for."""
        model, tokenizer = load_decoder(config.model, config.layers, start=config.start, seed=seed)
        return cls(model, tokenizer, config.dtype)

    def embedded(self, ids: Tensor) -> Tensor:
        """float32 (..., width) of token ids int64 (...)."""
        return self._tokens[ids]

    def states(self, vectors: Tensor, valid: Tensor) -> Tensor:
        """float32 (B, L, width), after the last layer and before the last norm, of float (B, L, width) with padding on the left.
        Gradients pass through to `vectors`."""
        return read_vectors(self.body, vectors.to(self._dtype), valid).float()

    def masked_states(self, vectors: Tensor, hidden: Tensor, positions: Tensor) -> Tensor:
        """The same where hidden bool (B, L, L) says what a query (second axis) may not look at. positions: int64 (B, L)."""
        mask = torch.zeros(hidden.shape, dtype=self._dtype).masked_fill(hidden, torch.finfo(self._dtype).min)[:, None]
        out = self.body(inputs_embeds=vectors.to(self._dtype), attention_mask=mask, position_ids=positions, use_cache=False)
        return cast(Tensor, out.last_hidden_state.float())

    def next_state(self, vectors: Tensor, memory: Any, start: int) -> Tensor:
        """float32 (width,): the last state of one row float (L, width) that continues `memory`, which grows by it. start: tokens before."""
        positions = torch.arange(start, start + len(vectors))[None]
        out = self.body(inputs_embeds=vectors[None].to(self._dtype), position_ids=positions, past_key_values=memory, use_cache=True)
        return cast(Tensor, out.last_hidden_state[0, -1].float())

    def normed(self, states: Tensor) -> Tensor:
        """float32 (..., width): what is multiplied with `outputs`."""
        return cast(Tensor, self._norm(states))

    def require_unchanged(self) -> None:
        """Raises ConfigError: its weights, its mode or its answers are not those it had at first."""
        moving = self.body.training or any(parameter.requires_grad or parameter.grad is not None for parameter in self.body.parameters())
        if moving or self._digest() != self.digest or not torch.allclose(self._probed(), self._answer, rtol=1e-4, atol=1e-5):
            raise ConfigError(f"{type(self.body).__name__} is not frozen: its weights, its mode or two equal passes differ; leave it out of what is trained")

    @torch.no_grad()
    def _probed(self) -> Tensor:
        ids = torch.arange(min(_PROBES, len(self._tokens)))[None]
        return self.states(self.embedded(ids), torch.ones_like(ids, dtype=torch.bool))

    def _digest(self) -> str:
        running = hashlib.sha256()
        named = [("tokens", self._tokens), ("outputs", self.outputs), *self.body.named_parameters(), *self._norm.named_parameters("norm")]
        for name, value in named:
            running.update(name.encode() + value.detach().contiguous().view(torch.uint8).numpy().tobytes())
        return running.hexdigest()
