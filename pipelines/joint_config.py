"""Options of the stage `joint_adapter`, apart from the stage: boards name it too."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys.config import Config
from recsys.embeddings.joint_training import JointTrainingConfig


class JointAdapterConfig(Config):
    """What the stage reads."""

    joint_training: JointTrainingConfig
    validation_cases: Annotated[int, Field(ge=1)] = 2000
    """Cases of the validation period by which it stops, and whose items are encoded each time."""
    seed: int = 0
