"""Which tokens a token sees: a decoder's causal mask, removed on request and then measured (LLM2Vec, BehnamGhader et al. 2024, section 2.1)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError

Attention = Literal["model", "causal", "bidirectional"]
SWITCHABLE = ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3")
"""Types (`model_type` of config.json) whose every layer takes its mask from transformers' masking functions, which `config.is_causal` switches."""
_FLOAT32 = "sdpa_float32"
_PROBE = 3
"""Tokens. Few, so that the first sees the last through the narrowest of sliding windows."""


def resolve(wanted: Attention, *, causal: bool, model_type: str, model: str) -> Attention:
    """ "causal" or "bidirectional". causal: what the model does by itself.

    Raises:
        ConfigError: the model's attention cannot be brought to what is wanted.
    """
    own: Attention = "causal" if causal else "bidirectional"
    if wanted in ("model", own) or (wanted == "bidirectional" and model_type in SWITCHABLE):
        return own if wanted == "model" else wanted
    raise ConfigError(
        f"model {model!r} is of type {model_type!r} with {own} attention, which cannot be made {wanted}; "
        f"a causal mask can be removed from {', '.join(SWITCHABLE)}; use attention: model"
    )


def remove_causal_mask(model: nn.Module) -> None:
    """In place: every token of the window sees every other. A layer with a sliding window then looks as far to the right as to the left."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None:
            config.is_causal = False  # read where transformers makes the masks
        if hasattr(module, "is_causal"):
            module.is_causal = False  # type: ignore[assignment]  # read where there is no mask, as no token is padding


def attend_in_float32(model: nn.Module) -> None:
    """In place, for models whose attention is torch's own kernel: softmax and sums over the tokens in float32, all else in the model's dtype.

    A decoder without its mask was not trained to be so and hangs on small differences: in bf16 the number of padded positions alone
    brought SmolLM2's vectors to a cosine of 0.978 with each other, and 0.945 with float32; with this to 1.000 and 0.990.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if model.config._attn_implementation == "sdpa":  # type: ignore[union-attr]
        ALL_ATTENTION_FUNCTIONS.register(_FLOAT32, _sdpa_in_float32)
        ALL_MASK_ATTENTION_FUNCTIONS.register(_FLOAT32, sdpa_mask)
        model.set_attn_implementation(_FLOAT32)  # type: ignore[operator]


def _sdpa_in_float32(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any) -> tuple[Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    states, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **options)
    return states.to(query.dtype), None


@torch.inference_mode()
def is_causal(model: nn.Module) -> bool:
    """Measured: whether the first token's state stays the same to the bit when the last token is another."""
    vocabulary = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    middle = vocabulary // 2
    ids = torch.tensor([[middle + offset for offset in range(_PROBE)]])
    other = ids.clone()
    other[0, -1] += 1
    first, second = (model(input_ids=tokens).last_hidden_state[0, 0] for tokens in (ids, other))
    return torch.equal(first, second)
