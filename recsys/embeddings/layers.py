"""The layers of a transformer, and the model cut in two between them."""

from __future__ import annotations

import copy
from typing import Any

import torch
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
        self._last = _read_at(self._model)
        self._encoder = hasattr(model, "encoder")
        if self._encoder:
            # Their embeddings would add positions and a norm to the states, whatever they are given.
            self._model.embeddings = _Passing()

    def forward(self, states: Tensor, **inputs: Any) -> Tensor:
        """(B, L, d) of the lower half, and what it was given besides the tokens -> the last hidden states (B, L, d)."""
        hidden: Tensor = self._model(inputs_embeds=states, **inputs).last_hidden_state
        return hidden

    def at(self, positions: Tensor, states: Tensor, **inputs: Any) -> Tensor:
        """`forward`'s hidden states at int64 (B, k) positions alone, distinct in a row: (B, k, d). The last layer's feed-forward, three quarters of a
        decoder's layer, is not computed elsewhere."""
        if self._last is not None:
            self._last.positions = positions
        try:
            hidden: Tensor = self(states, **inputs)
        finally:
            if self._last is not None:
                self._last.positions = None
        return hidden.gather(1, positions[:, :, None].expand(-1, -1, hidden.shape[2]))


class _At(nn.Module):
    """A map that acts on each position by itself, at `positions` alone; 0 elsewhere. None: everywhere."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.positions: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        if self.positions is None:
            return self.inner(hidden)  # type: ignore[no-any-return]
        places = self.positions[:, :, None].expand(-1, -1, hidden.shape[2])
        return torch.zeros_like(hidden).scatter(1, places, self.inner(hidden.gather(1, places)))


def _read_at(model: Any) -> _At | None:
    """Put `_At` around the last layer's feed-forward, which is an `mlp` in decoders; None in others."""
    _, layers = layers_of(model)
    if not len(layers) or not isinstance(getattr(layers[-1], "mlp", None), nn.Module):
        return None
    # The layer is the model's own: its copy shares all modules but the list of them.
    last = _shallow(layers[-1])
    last.mlp = _At(last.mlp)
    layers[-1] = last
    return last.mlp  # type: ignore[no-any-return]


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
