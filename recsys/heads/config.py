"""Options of the fused ranker."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recsys.config import Config
from recsys.losses import LossConfig, SoftmaxLoss
from recsys.models.encoder import EncoderConfig
from recsys.models.sasrec import SasRecConfig
from recsys.training.config import TrainingConfig

Transform = Literal["none", "unit", "standardise", "whiten", "zca"]


class FusionConfig(Config):
    """ID-only SASRec is this with no text tables."""

    encoder: EncoderConfig = SasRecConfig()
    """`kind: sasrec` (the default) or `kind: ligr`, eSASRec's."""
    loss: LossConfig = SoftmaxLoss()
    """`kind: softmax` over the whole catalogue, `sampled_softmax` or `gbce`."""
    training: TrainingConfig = TrainingConfig()
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the items that each training step sees as if they were cold. 0: cold items are out of distribution."""
    transform: Transform = "standardise"
    """What is done to the vectors of each signal before its adapter; fitted on training items alone. none: nothing. unit: each vector
    to length 1. standardise: each dimension to mean 0 and variance 1. whiten: principal components to variance 1. zca: the same,
    turned back to the old axes (WhitenRec, ICDE 2024). All but `none` give vectors of a length of about 1."""
    components: Annotated[int, Field(ge=1)] = 128
    """Leading principal components that `whiten` and `zca` keep."""
    gate: bool = True
    """Weigh the signals per item by a small net of its training count; else all weigh 1."""
    projection: bool = True
    """A learned linear map between the item vectors that are read and those that are ranked."""
