"""`StandIn`: an encoder without weights that looks at texts and pictures, takes as long as it is told, and writes down what it was given."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from recsys.embeddings.configs import EncoderConfig
from recsys.embeddings.content import Content
from recsys.embeddings.encoder import require_finite
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.image_decode import decode
from recsys.embeddings.text import TextEncoderConfig
from recsys.errors import ConfigError
from recsys.types import FloatArray


class StandInConfig(TextEncoderConfig):
    """`model: hashed`, and pictures count."""

    READS: ClassVar[frozenset[str]] = frozenset({"text", "image"})


class StandIn(HashedEncoder):
    """As `HashedEncoder`; a picture is decoded, and its mean colour is a word of the text.

    A text that says "not finite" gets NaN, and is refused; one that says "kill the process" does.
    """

    def __init__(self, template: str, seconds: float, log: Path | None) -> None:
        super().__init__(template=template)
        self._seconds, self._log = seconds, log
        self.tokens = 0

    def encode(self, contents: Sequence[Content]) -> FloatArray:
        """float32 (n, dim). Raises ImageError, NonFiniteError."""
        shown = [Content(f"{content.text} {_colours(content.image)}" if content.image is not None else content.text) for content in contents]
        if any("kill the process" in content.text for content in contents):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self._seconds * len(contents))
        vectors = super().encode(shown)
        vectors[["not finite" in content.text for content in contents]] = np.nan
        require_finite(vectors, contents, "stand-in")
        self.tokens += sum(len(content.text.split()) for content in shown)
        if self._log is not None:  # one write of less than a page: lines of several processes do not mix
            lines = "".join(f"{time.time_ns()} {os.getpid()} {content.key.hex()}\n" for content in contents)
            with self._log.open("a", encoding="ascii") as file:
                file.write(lines)
        return vectors


@dataclass(frozen=True)
class LoadStandIn:
    """What an executor takes as `load`.

    seconds: of an item.  loading: of the model.  error: what loading raises.
    log: gets a line "time in ns, process, key" a content, once it is encoded.
    """

    seconds: float = 0.0
    loading: float = 0.0
    error: str = ""
    log: Path | None = None

    def __call__(self, config: EncoderConfig) -> StandIn:
        time.sleep(self.loading)
        if self.error:
            raise ConfigError(self.error)
        return StandIn(config.template, self.seconds, self.log)


def _colours(picture: bytes) -> str:
    return "".join(f"{value:02x}" for value in decode(picture).resize((1, 1)).getpixel((0, 0)))  # type: ignore[union-attr]  # RGB: three numbers
