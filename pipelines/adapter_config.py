"""Options of the stage `adapter`, apart from the stage: boards name it too."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys.config import Config
from recsys.embeddings.fine_tuning import FineTuningConfig


class AdapterConfig(Config):
    """What the stage reads."""

    fine_tuning: FineTuningConfig
    validation_cases: Annotated[int, Field(ge=1)] = 2000
    """Cases of the validation period by which it stops, and whose items are encoded each time."""
    seed: int = 0
