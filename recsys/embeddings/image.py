"""`ImageEncoder`: pictures to vectors by a frozen vision model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from recsys.embeddings.content import Content
from recsys.embeddings.encoder import require_finite
from recsys.embeddings.image_config import ImageEncoderConfig
from recsys.embeddings.image_decode import decode
from recsys.embeddings.image_models import Tower, find_image_model
from recsys.embeddings.space import EmbeddingSpace
from recsys.errors import DataError, ImageError
from recsys.types import FloatArray


class ImageEncoder:
    """Decodes and resizes each batch in the thread that encodes it: on posters that takes a tenth of the model's time."""

    def __init__(self, config: ImageEncoderConfig, space: EmbeddingSpace, tower: Tower) -> None:
        self.config = config
        self._space, self._tower = space, tower

    @classmethod
    def load(cls, config: ImageEncoderConfig) -> ImageEncoder:
        """Raises ConfigError, ArtifactError: weights not found or damaged, or options that do not fit them."""
        model = find_image_model(config)
        return cls(config, model.space, model.load())

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def dim(self) -> int:
        return self._space.dim

    @torch.inference_mode()
    def encode(self, contents: Sequence[Content]) -> FloatArray:
        """float32 (n, dim); texts are not looked at.

        Raises:
            DataError: contents without a picture.  ImageError (a DataError): a picture that cannot be decoded.  NonFiniteError.
        """
        if without := [row for row, content in enumerate(contents) if content.image is None]:
            raise DataError(
                f"encoder {self.config.name!r}: {len(without)} of {len(contents)} contents have no picture, "
                f"first row {without[0]} ({contents[without[0]]}); give them one or leave them out"
            )
        blocks = [torch.zeros(0, self.dim)]
        for start in range(0, len(contents), self.config.batch_size):
            pictures = [self._picture(row, contents[row]) for row in range(start, min(start + self.config.batch_size, len(contents)))]
            blocks.append(self._vectors(pictures))
        result: FloatArray = torch.cat(blocks).numpy().astype(np.float32)
        require_finite(result, contents, self.config.model)
        return result

    def _picture(self, row: int, content: Content) -> Image.Image:
        try:
            return decode(content.image or b"", max_pixels=self.config.max_pixels)
        except ImageError as error:
            raise ImageError(f"encoder {self.config.name!r}: row {row}: {error}") from None

    def _vectors(self, pictures: Sequence[Image.Image]) -> Tensor:
        vectors = self._tower.vectors(self._tower.prepare(pictures))
        return nn.functional.normalize(vectors, dim=1) if self.config.normalise else vectors
