"""The first layers of a decoder, reading vectors: an item's vector stands where a token's would."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from recsys.embeddings.layers import layers_of
from recsys.embeddings.norms import speed_up_norms
from recsys.errors import ConfigError
from recsys.rng import derive_seed
from recsys.weights.find import find_weights
from recsys.weights.load import load_model

Start = Literal["pretrained", "random"]
_FINAL_NORMS = ("norm", "ln_f")


def load_decoder(model: str, layers: int | None, *, start: Start = "pretrained", seed: int = 0) -> tuple[Any, Any]:
    """(causal language model with its head, tokenizer) in float32, in eval mode and frozen, cut to its first `layers` (None: all).

    model: as of a text encoder. start: "random" draws all weights anew from `seed`, the ablation of what the language model knows.

    Raises:
        ConfigError: weights not found, not those of a causal language model, or fewer layers.
    """
    weights = find_weights(model)
    if not weights.causal:
        raise ConfigError(f"model {model!r} of type {weights.model_type!r} is no causal language model: each position must see only those before it")
    whole, tokenizer = load_model(weights, "float32", head=True)
    cut_after(whole.base_model, layers)
    whole.config = whole.base_model.config
    if start == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "decoder"))
            whole = type(whole)(whole.config)
    speed_up_norms(whole)
    whole.config.use_cache = False
    return whole.eval().requires_grad_(False), tokenizer


def cut_after(body: nn.Module, count: int | None) -> None:
    """Keep the first `count` layers of a plain decoder (None: all), and its last norm, in place.

    Raises:
        ConfigError: it has fewer, or no last norm that is known.
    """
    name, layers = layers_of(body)
    final_norm_of(body)
    kept = len(layers) if count is None else count
    if not 0 < kept <= len(layers):
        raise ConfigError(f"the first {count} layers are asked for; {type(body).__name__} has {len(layers)}")
    config: Any = body.config
    setattr(body, name, layers[:kept])
    config.num_hidden_layers = kept
    if getattr(config, "layer_types", None) is not None:
        # Which mask a layer gets is looked up by its place.
        config.layer_types = config.layer_types[:kept]


def final_norm_of(body: nn.Module) -> str:
    """Name of the norm after the last layer. Raises ConfigError: there is none that is known."""
    for name in _FINAL_NORMS:
        if isinstance(getattr(body, name, None), nn.Module):
            return name
    raise ConfigError(f"{type(body).__name__} has none of {', '.join(_FINAL_NORMS)} after its last layer; only plain decoders can be cut")


def without_tokens(body: nn.Module) -> None:
    """In place: drop the table of token embeddings, which vectors bypass and which is most of a small model."""
    body.set_input_embeddings(nn.Identity())  # type: ignore[operator]


def token_scale(body: nn.Module) -> float:
    """Root mean square of the entries of the token embeddings: what the first layer is used to."""
    weight: Tensor = body.get_input_embeddings().weight  # type: ignore[operator]
    return float(weight.detach().float().square().mean().sqrt())


def read_vectors(body: nn.Module, vectors: Tensor, valid: Tensor) -> Tensor:
    """Last hidden states float (B, L, d), after the last norm, of float (B, L, d) with padding on the left.

    valid: bool (B, L). Positions count from 0 at each row's first valid one and padding is never looked at, so the states at
    valid positions do not depend on how much padding there is; those at padding are finite and mean nothing.
    """
    positions = (valid.cumsum(dim=1) - 1).clamp(min=0)
    mask = None if bool(valid.all()) else valid.long()
    states: Tensor = body(inputs_embeds=vectors, attention_mask=mask, position_ids=positions, use_cache=False).last_hidden_state
    return states
