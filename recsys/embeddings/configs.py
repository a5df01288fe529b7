"""`EncoderConfig`: the config of any encoder, told apart by `kind`; a mapping without it is a text encoder's.

A member has `kind` (a Literal with its own default), `name` (of the signal), `template` (how an item becomes a text; "" where it has
none), `space()` (from the files alone, no model is loaded), and, where it looks at more than texts, the class variable `READS`.
To add one: write the union below, and the way to load it in `recsys.embeddings.loading`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from recsys.config import Config
from recsys.embeddings.endpoint import EndpointEncoderConfig
from recsys.embeddings.image_config import ImageEncoderConfig
from recsys.embeddings.joint import JointEncoderConfig
from recsys.embeddings.post_encoder import PostEncoderConfig
from recsys.embeddings.promptreps import PromptRepsConfig
from recsys.embeddings.text import TextEncoderConfig

TEXT, IMAGE, JOINT, PROMPTREPS, ENDPOINT, POST = "text", "image", "joint", "promptreps", "endpoint", "post"


def kind_of(values: Any) -> str:
    """The tag of plain values or of a config; "text" where none is stated, as configs were written before there were others."""
    return str(values.get("kind", TEXT) if isinstance(values, dict) else getattr(values, "kind", TEXT))


EncoderConfig = Annotated[
    Annotated[TextEncoderConfig, Tag(TEXT)]
    | Annotated[ImageEncoderConfig, Tag(IMAGE)]
    | Annotated[JointEncoderConfig, Tag(JOINT)]
    | Annotated[PromptRepsConfig, Tag(PROMPTREPS)]
    | Annotated[EndpointEncoderConfig, Tag(ENDPOINT)]
    | Annotated[PostEncoderConfig, Tag(POST)],
    Discriminator(kind_of),
]


class _Holder(Config):
    """So that the errors are told like any other config's."""

    encoder: EncoderConfig


def reads(config: EncoderConfig) -> frozenset[str]:
    """What of an item's content the encoder looks at: "text", "image" or both; `READS` of its class, else text alone."""
    return frozenset(getattr(type(config), "READS", (TEXT,)))


def parse_encoder(values: object, *, source: str = "encoder") -> EncoderConfig:
    """From plain values, as configs and bundles keep them. Raises ConfigError."""
    return _Holder.parse({"encoder": values}, source=source).encoder
