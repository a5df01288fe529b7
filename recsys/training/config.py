"""Options of the training loop."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys.config import Config


class TrainingConfig(Config):
    epochs: Annotated[int, Field(ge=1)] = 60
    patience: Annotated[int, Field(ge=1)] = 5
    """Validations without a new best before the training ends."""
    validate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between validations; the last epoch is always validated."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Windows (pieces of histories) a step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    sort_by_length: bool = False
    """Fill steps with windows of similar length. Fewer padded positions, and clearly worse models; for comparison."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Cap: the epoch that passes this many seconds of training (over all resumed runs) is validated and is the last."""
