"""The seam between new items and whoever turns their texts into vectors, and the form that does it in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from recsys.config import digest_of
from recsys.embeddings.content import of_texts
from recsys.types import FloatArray

if TYPE_CHECKING:
    from recsys.embeddings.encoder import Encoder

EncoderLoader = Callable[[Mapping[str, Any]], "Encoder"]


class ItemEncoder(Protocol):
    def encode(self, config: Mapping[str, Any], texts: Sequence[str]) -> tuple[str, FloatArray]:
        """(space_id, float32 (n, d)). config: plain values of an `EncoderConfig`, as a bundle keeps them."""
        ...


class InProcessEncoder:
    """Loads an encoder when it is first asked for, and keeps it: right for notebooks. A service uses `EncoderProcess`."""

    def __init__(self, load: EncoderLoader) -> None:
        self._load = load
        self._loaded: dict[str, Encoder] = {}

    def encode(self, config: Mapping[str, Any], texts: Sequence[str]) -> tuple[str, FloatArray]:
        key = digest_of(dict(config))
        if key not in self._loaded:
            self._loaded[key] = self._load(config)
        encoder = self._loaded[key]
        return encoder.space.space_id, encoder.encode(of_texts(texts))


def load_plain_encoder(config: Mapping[str, Any]) -> Encoder:
    """From the plain values of an `EncoderConfig`, as a bundle keeps them."""
    from recsys.embeddings.configs import parse_encoder
    from recsys.embeddings.loading import load_encoder

    return load_encoder(parse_encoder(dict(config), source="encoders.json of the bundle"))


def template_of(config: Mapping[str, Any]) -> str:
    """How the encoder's items become texts; "" where it reads none."""
    from recsys.embeddings.configs import parse_encoder

    return str(config["template"]) if "template" in config else parse_encoder(dict(config), source="encoders.json of the bundle").template
