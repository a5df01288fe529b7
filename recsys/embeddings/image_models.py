"""From a config to a vision model: what identifies it without loading it, and how to load it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import PIL
from PIL import Image, features
from torch import Tensor

from recsys.embeddings.image_config import ImageEncoderConfig
from recsys.embeddings.image_decode import RULES
from recsys.embeddings.space import EmbeddingSpace, model_name

GREY = (127, 127, 127)


class Tower(Protocol):
    """A frozen vision model, and the way from pictures to its input."""

    def prepare(self, pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        """RGB pictures of any sizes -> the model's input, one row each."""
        ...

    def vectors(self, inputs: dict[str, Tensor]) -> Tensor:
        """float32 (B, dim), not normalised."""
        ...


@dataclass(frozen=True)
class ImageModel:
    """`space` comes from the files alone; `load` reads the weights and raises ConfigError or ArtifactError."""

    space: EmbeddingSpace
    load: Callable[[], Tower]


def find_image_model(config: ImageEncoderConfig) -> ImageModel:
    """Raises ConfigError: no such model, not a vision model of a known family, or an option that it does not have."""
    # Here: transformers takes seconds to import, and these modules import this one.
    from recsys.embeddings import image_efficientnet, image_transformers

    return image_efficientnet.find(config) if config.model == image_efficientnet.MODEL else image_transformers.find(config)


def space_of(config: ImageEncoderConfig, *, revision: str, pooling: str, dim: int, side: int, preparation: str) -> EmbeddingSpace:
    """preparation: what brings RGB pixels to the model's input, with all its settings."""
    decoders = ", ".join(f"{name} {features.version(name)}" for name in ("libjpeg_turbo", "webp"))
    return EmbeddingSpace(
        model=model_name(config.model),
        revision=revision,
        tokenizer="",
        template=config.template,
        max_length=0,
        layer=-1,
        pooling=pooling,
        attention="bidirectional",
        normalise=config.normalise,
        dtype=config.dtype,
        dim=dim,
        image_size=side,
        image_backend=f"Pillow {PIL.__version__} ({decoders}), decode {RULES}, {preparation}",
    )


def letterbox(picture: Image.Image, side: int, resample: int) -> Image.Image:
    """The whole picture, scaled so that its longer side is `side`, in the middle of a grey square."""
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    square = Image.new("RGB", (side, side), GREY)
    square.paste(picture.resize((width, height), Image.Resampling(resample)), ((side - width) // 2, (side - height) // 2))
    return square
