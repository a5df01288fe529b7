"""`PostEncoder`: an encoder whose vectors pass through a fitted post-processing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from recsys.config import Config
from recsys.embeddings.content import Content
from recsys.embeddings.encoder import Encoder
from recsys.embeddings.endpoint import EndpointEncoderConfig
from recsys.embeddings.post import FittedPost
from recsys.embeddings.promptreps import PromptRepsConfig
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.text import TextEncoderConfig
from recsys.errors import SpaceMismatchError
from recsys.types import FloatArray


def _kind(values: Any) -> str:
    return str(values.get("kind", "text") if isinstance(values, dict) else getattr(values, "kind", "text"))


class PostEncoderConfig(Config):
    """A text encoder and what was fitted to its vectors."""

    NOT_IN_SPACE: ClassVar[frozenset[str]] = frozenset({"kind", "name"})

    kind: Literal["post"] = "post"
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    """Name of the signal."""
    encoder: Annotated[
        Annotated[TextEncoderConfig, Tag("text")] | Annotated[PromptRepsConfig, Tag("promptreps")] | Annotated[EndpointEncoderConfig, Tag("endpoint")],
        Discriminator(_kind),
    ]
    post: Path
    """Folder of `FittedPost.save`."""

    @property
    def template(self) -> str:
        return self.encoder.template

    def space(self) -> EmbeddingSpace:
        """The space, from the files alone: no model is loaded. Raises ConfigError, ArtifactError, SpaceMismatchError (fitted on other vectors)."""
        post = FittedPost.load(self.post)
        _require_base(self.encoder.space(), post)
        return post.space


class PostEncoder:
    """See `FittedPost`."""

    def __init__(self, encoder: Encoder, post: FittedPost) -> None:
        """Raises SpaceMismatchError: the post-processing was fitted on another encoder's vectors."""
        _require_base(encoder.space, post)
        self._encoder, self._post, self._space = encoder, post, post.space

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def dim(self) -> int:
        return self._space.dim

    def encode(self, contents: Sequence[Content]) -> FloatArray:
        """float32 (n, dim). Raises as the encoder does."""
        return self._post.apply(self._encoder.encode(contents))


def _require_base(space: EmbeddingSpace, post: FittedPost) -> None:
    if space != post.base:
        raise SpaceMismatchError(
            f"post-processing fitted in space {post.base.space_id} ({post.base.model}), the encoder is in {space.space_id} ({space.model})"
        )
