"""The layers of a transformer, and the model cut in two between them."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from recsys.errors import ConfigError

CUTTABLE = {"llama", "mistral", "qwen2", "qwen3", "bert", "roberta", "xlm-roberta"}
"""Model types whose halves were proven equal to the whole. In others something beside the layers may act on the states in between."""


def layers_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Where the layers are, such as "encoder.layer", and they themselves. Raises ConfigError: no list of so many layers as the config says."""
    count = int(model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise ConfigError(f"{type(model).__name__} has no list of {count} layers; only plain transformers can be fine-tuned")


def first_of_last(model: nn.Module, count: int) -> int:
    """Index of the first of the last `count` layers. Raises ConfigError: the model has fewer."""
    _, layers = layers_of(model)
    if not 0 < count <= len(layers):
        raise ConfigError(f"the last {count} layers are asked for; {type(model).__name__} has {len(layers)}")
    return len(layers) - count


class LowerHalf(nn.Module):
    """Embeddings and the layers before `first`; shares the model's parameters."""

    def __init__(self, model: nn.Module, first: int) -> None:
        super().__init__()
        _require_cuttable(model)
        self._model = _with_layers(model, slice(None, first))
        if hasattr(self._model, "norm"):
            # The decoders' last norm belongs to the upper half.
            self._model.norm = nn.Identity()

    def forward(self, **inputs: Any) -> Tensor:
        """What the whole model takes -> (B, L, d), the states before layer `first`."""
        states: Tensor = self._model(**inputs).last_hidden_state
        return states


class UpperHalf(nn.Module):
    """The layers from `first` on, and the last norm; shares the model's parameters."""

    def __init__(self, model: nn.Module, first: int) -> None:
        super().__init__()
        _require_cuttable(model)
        self._model = _with_layers(model, slice(first, None))
        self._encoder = hasattr(model, "encoder")
        if self._encoder:
            # Their embeddings would add positions and a norm to the states, whatever they are given.
            self._model.embeddings = _Passing()

    def forward(self, states: Tensor, **inputs: Any) -> Tensor:
        """(B, L, d) of the lower half, and what it was given besides the tokens -> the last hidden states (B, L, d)."""
        hidden: Tensor = self._model(inputs_embeds=states, **inputs).last_hidden_state
        return hidden


class _Passing(nn.Module):
    def forward(self, *, inputs_embeds: Tensor, **others: Any) -> Tensor:
        return inputs_embeds


def _with_layers(model: nn.Module, kept: slice) -> Any:
    """The model with some of its layers. Modules are shared, the lists that hold them are its own."""
    name, layers = layers_of(model)
    *parents, last = name.split(".")
    copied = node = _shallow(model)
    for parent in parents:
        setattr(node, parent, _shallow(getattr(node, parent)))
        node = getattr(node, parent)
    setattr(node, last, layers[kept])
    if getattr(model, "pooler", None) is not None:
        copied.pooler = None
    config = copy.copy(model.config)
    config.num_hidden_layers = len(layers[kept])  # type: ignore[union-attr]
    if (kinds := getattr(config, "layer_types", None)) is not None:
        # Which mask a layer gets is looked up by its place.
        config.layer_types = kinds[kept]  # type: ignore[union-attr]
    copied.config = config
    return copied


def _shallow(module: nn.Module) -> Any:
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied


def _require_cuttable(model: nn.Module) -> None:
    kind = str(model.config.model_type)  # type: ignore[union-attr]
    if kind not in CUTTABLE:
        raise ConfigError(f"models of type {kind!r} cannot be cut between their layers; known are: {', '.join(sorted(CUTTABLE))}")
