"""The signals of a fused ranker by configuration: where the vectors of the items come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipelines.adapter_config import AdapterConfig
from pipelines.item_tables import Made
from recsys.config import Config
from recsys.embeddings.configs import EncoderConfig
from recsys.embeddings.post import PostConfig


class EncoderSignal(Config):
    """By a frozen encoder, through the cache of vectors."""

    kind: Literal["encoder"]
    encoder: EncoderConfig
    """`name` may be left out: it is that of the signal."""
    post: PostConfig | None = None
    """Fitted on the items of the split's training part."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("encoder"), dict):
            return {**values, "encoder": {"name": "signal", **values["encoder"]}}
        return values


class TunedSignal(Config):
    """By an encoder that is fine-tuned on the training part of the board's own split."""

    kind: Literal["fine_tuned"]
    adapter: AdapterConfig
    post: PostConfig | None = None


class MadeSignal(Config):
    """Without weights: random vectors, or TF-IDF."""

    kind: Literal["made"]
    made: Made
    post: PostConfig | None = None


class TableSignal(Config):
    """A saved `EmbeddingTable`, such as a graph's."""

    kind: Literal["table"]
    path: Path
    """From the folder where the command runs; the record of a run states it."""
    space_id: str
    """Of its vectors: another table under the same path is an error, not another result."""
    post: PostConfig | None = None


Signal = Annotated[EncoderSignal | TunedSignal | MadeSignal | TableSignal, Field(discriminator="kind")]
