"""`ImageEncoder`: pictures to vectors by a frozen vision model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

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

_SPARE = 2
"""Times the model's side that the shorter side of a JPEG keeps: enough for the resizing that follows."""


class ImageEncoder:
    """Pictures are decoded and resized by as many threads as torch has, some batches ahead of the model: Pillow works outside the interpreter lock."""

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
        blocks = [torch.zeros(0, self.dim), *(self._tower.vectors(inputs) for inputs in self._inputs(contents))]
        vectors = torch.cat(blocks)
        if self.config.normalise:
            vectors = nn.functional.normalize(vectors, dim=1)
        result: FloatArray = vectors.numpy().astype(np.float32)
        require_finite(result, contents, self.config.model)
        return result

    def _inputs(self, contents: Sequence[Content]) -> Iterator[dict[str, Tensor]]:
        """The model's input, batch after batch."""
        size = self.config.batch_size
        batches = [range(start, min(start + size, len(contents))) for start in range(0, len(contents), size)]
        threads = min(torch.get_num_threads(), len(batches))
        if threads <= 1:
            yield from (self._prepared(contents, rows) for rows in batches)
            return
        ahead: deque[Future[dict[str, Tensor]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for rows in batches:
                ahead.append(pool.submit(self._prepared, contents, rows))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _prepared(self, contents: Sequence[Content], rows: range) -> dict[str, Tensor]:
        return self._tower.prepare([self._picture(row, contents[row]) for row in rows])

    def _picture(self, row: int, content: Content) -> Image.Image:
        try:
            return decode(content.image or b"", max_pixels=self.config.max_pixels, enough=_SPARE * self._space.image_size)
        except ImageError as error:
            raise ImageError(f"encoder {self.config.name!r}: row {row}: {error}") from None
