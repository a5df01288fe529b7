"""A frozen transformer, ready to encode: adapter merged, attention as wanted and measured."""

from __future__ import annotations

import logging
from typing import Any

import torch

from recsys.embeddings.adapter import Adapter
from recsys.embeddings.attention import SWITCHABLE, attend_in_float32, is_causal, remove_causal_mask
from recsys.embeddings.norms import speed_up_norms
from recsys.errors import ConfigError
from recsys.weights.find import Weights
from recsys.weights.load import DTYPES, load_model

_log = logging.getLogger(__name__)


def load_transformer(weights: Weights, dtype: str, attention: str, *, adapter: Adapter | None = None, head: bool = False) -> tuple[Any, Any]:
    """(model, tokenizer). attention: resolved, "causal" or "bidirectional". head: with the language-model head.

    Raises:
        ConfigError: weights are missing, or the attention is measured to be another one than stated.
    """
    if dtype == "bfloat16" and not torch.cuda.is_available() and not torch.cpu._is_amx_tile_supported():
        _log.info("%s: without AMX this CPU computes bfloat16 slower than float32; dtype: float32 (another embedding space) may be faster", weights.folder.name)
    # An adapter is merged in float32: in bf16 most of its small changes would be rounded away.
    model, tokenizer = load_model(weights, "float32" if adapter else dtype, head=head)
    if adapter:
        model = adapter.merged_into(model).to(DTYPES[dtype])
    # Some Gemma models have a bidirectional mask of their own.
    if attention == "bidirectional" and weights.model_type in SWITCHABLE and not getattr(model.config, "use_bidirectional_attention", False):
        remove_causal_mask(model)
        if dtype != "float32":
            attend_in_float32(model)
    speed_up_norms(model)
    model.config.use_cache = False
    model = model.eval().requires_grad_(False)
    body = model.base_model if head else model
    measured = "causal" if is_causal(body) else "bidirectional"
    if measured != attention:
        raise ConfigError(f"{weights.folder.name}: the attention of type {weights.model_type!r} should be {attention}, but is measured to be {measured}")
    return model, tokenizer
