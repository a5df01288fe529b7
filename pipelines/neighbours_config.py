"""Options of the stage `neighbours`, apart from the stage: boards name it too."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from recsys.config import Config, digest_of
from recsys.embeddings.configs import EncoderConfig
from recsys.generation.opening import GeneratorConfig
from recsys.graph.synthetic_neighbours import NeighbourLinks, NeighbourTask


class NeighboursConfig(Config):
    """What the stage reads."""

    task: NeighbourTask
    writer: GeneratorConfig
    encoder: EncoderConfig
    """Of the texts that are written and of the real items; `name` may be left out."""
    links: NeighbourLinks = NeighbourLinks()
    most: Annotated[int, Field(ge=0)] = 5
    """Training interactions up to which an item is thin, and is written for."""
    linkable: Annotated[int, Field(ge=0)] = 6
    """Training interactions from which a real item may be linked with."""
    shard_rows: Annotated[int, Field(ge=1)] = 16
    """Finished answers kept in memory at most."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("encoder"), dict):
            return {**values, "encoder": {"name": "neighbours", **values["encoder"]}}
        return values

    def digest(self) -> str:
        """Without what is speed: the writer counts by its own id."""
        return digest_of([self.model_dump(mode="json", exclude={"writer", "shard_rows"}), self.writer.generator_id])
