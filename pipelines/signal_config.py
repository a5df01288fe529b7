"""The signals of a fused ranker by configuration: where the vectors of the items come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipelines.adapter_config import AdapterConfig
from pipelines.item_tables import Made
from pipelines.neighbours_config import NeighboursConfig
from recsys.config import Config
from recsys.embeddings.configs import EncoderConfig
from recsys.embeddings.post import PostConfig
from recsys.graph.build import GraphConfig
from recsys.graph.config import GraphEncoderConfig


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


class GraphTraining(Config):
    """By a graph network fitted on the training part of the board's own split; its training is none of the ranker's."""

    kind: Literal["graph"]
    build: GraphConfig = GraphConfig()
    settings: GraphEncoderConfig = GraphEncoderConfig()
    texts: dict[str, EncoderSignal] = Field(default_factory=dict)
    """Name -> what the graph reads of the items."""
    neighbours: NeighboursConfig | None = Field(default=None, exclude_if=lambda value: value is None)
    """What a language model writes beside thin items; null: nothing."""
    seed: int = 0
    post: PostConfig | None = None

    @model_validator(mode="after")
    def _texts_are_as_they_come(self) -> Self:
        if processed := [name for name, text in self.texts.items() if text.post is not None]:
            raise ValueError(f"the graph reads vectors as the encoder gives them; leave out the post of {', '.join(processed)}")
        return self


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


Signal = Annotated[EncoderSignal | TunedSignal | GraphTraining | MadeSignal | TableSignal, Field(discriminator="kind")]
