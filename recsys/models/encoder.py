"""The user encoders by configuration: item vectors of a history -> user states."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from recsys.models.ligr import LigrConfig, LigrEncoder
from recsys.models.sasrec import SasRecConfig, SasRecEncoder


def _kind(value: Any) -> str:
    """Configs without `kind` are SASRec's."""
    return str(value.get("kind", "sasrec") if isinstance(value, dict) else getattr(value, "kind", "sasrec"))


EncoderConfig = Annotated[Annotated[SasRecConfig, Tag("sasrec")] | Annotated[LigrConfig, Tag("ligr")], Discriminator(_kind)]

SequenceEncoder = SasRecEncoder | LigrEncoder


def make_encoder(config: SasRecConfig | LigrConfig) -> SequenceEncoder:
    return LigrEncoder(config) if isinstance(config, LigrConfig) else SasRecEncoder(config)
