"""Options of the fused ranker."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recsys.config import Config
from recsys.losses import LossConfig, SoftmaxLoss
from recsys.models.encoder import EncoderConfig
from recsys.models.sasrec import SasRecConfig
from recsys.training.config import TrainingConfig


class FusionConfig(Config):
    """ID-only SASRec is this with no text tables."""

    encoder: EncoderConfig = SasRecConfig()
    """`kind: sasrec` (the default) or `kind: ligr`, eSASRec's."""
    loss: LossConfig = SoftmaxLoss()
    """`kind: softmax` over the whole catalogue, `sampled_softmax` or `gbce`."""
    training: TrainingConfig = TrainingConfig()
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the items that each training step sees as if they were cold. 0: cold items are out of distribution."""
    transform: Literal["standardise", "whiten"] = "standardise"
    """standardise: each dimension to unit variance. whiten: principal components to unit variance."""
    components: Annotated[int, Field(ge=1)] = 128
    """Leading principal components that `whiten` keeps."""
    gate: bool = True
    """Weigh the signals per item by a small net of its training count; else all weigh 1."""
    projection: bool = True
    """A learned linear map between the item vectors that are read and those that are ranked."""
