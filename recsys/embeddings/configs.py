"""`EncoderConfig`: the config of any encoder, told apart by `kind`; a mapping without it is a text encoder's.

A member has `kind` (a Literal with its own default), `name` (of the signal), `template` (how an item becomes a text; "" where it has
none), `space()` (from the files alone, no model is loaded), and, where it looks at more than texts, the class variable `READS`.
To add one: write the union below, and the way to load it in `recsys.embeddings.loading`.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from recsys.embeddings.text import TextEncoderConfig
from recsys.errors import ConfigError

EncoderConfig = TextEncoderConfig
"""With a second member: `Annotated[Annotated[TextEncoderConfig, Tag("text")] | Annotated[..., Tag(...)], Discriminator(kind_of)]`."""

TEXT, IMAGE = "text", "image"


def kind_of(values: Any) -> str:
    """The tag of plain values or of a config; "text" where none is stated, as configs were written before there were others."""
    return str(values.get("kind", TEXT) if isinstance(values, dict) else getattr(values, "kind", TEXT))


def reads(config: EncoderConfig) -> frozenset[str]:
    """What of an item's content the encoder looks at: "text", "image" or both; `READS` of its class, else text alone."""
    return frozenset(getattr(type(config), "READS", (TEXT,)))


def parse_encoder(values: object, *, source: str = "encoder") -> EncoderConfig:
    """From plain values, as configs and bundles keep them. Raises ConfigError."""
    if isinstance(EncoderConfig, type):
        return EncoderConfig.parse(values, source=source)
    try:
        return TypeAdapter(EncoderConfig).validate_python(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {error}") from None
