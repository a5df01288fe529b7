"""Limits of the checks that stop a nightly run before it publishes nonsense."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from recsys.config import Config
from recsys.data.sources.daily import DailySource
from recsys.data.validation import ValidationConfig

Share = Annotated[float, Field(ge=0, le=1)]


class Limits(Config):
    reference_days: Annotated[int, Field(ge=1)] = 7
    """Days before the newest one that it is compared with, as many as there are."""
    fewest: Annotated[float, Field(ge=0)] = 0.3
    """The day's clean events over the median of the reference days: at least."""
    most: Annotated[float, Field(gt=0)] = 3.0
    """The same: at most."""
    quarantined: Share = 0.05
    """Share of the day's rows that may be in quarantine."""
    nulls: Share = 0.1
    """By how much the share of missing values of a column may exceed that of the reference days."""
    popularity: Annotated[float, Field(gt=0)] = 0.25
    """Population stability index of the day's events over ten groups of items with equal shares in the reference days, and the items that
    are new, beyond what chance explains; above 0.25 a distribution is by custom said to have shifted."""
    without_vector: Share = 0.1
    """Share of the new or changed items that may be left without a vector."""
    drift: Annotated[float, Field(gt=0)] = 0.5
    """Distance of the mean vector of new or changed items from that of all others, in standard deviations, beyond what chance explains."""
    moved: Share = 0.0
    """Share of the unchanged items whose vector may have moved although the space is the same."""
    min_items: Annotated[int, Field(ge=2)] = 20
    """With fewer new or changed items, drift says nothing and is not judged."""
    on_violation: Literal["stop", "hold"] = "stop"
    """stop: the run ends with exit code 65, nothing is trained. hold: it goes on, and the gate does not promote."""


class InspectConfig(Config):
    """What the stage reads: the newest day against those before it."""

    source: DailySource
    validation: ValidationConfig = ValidationConfig()
    day: date
    limits: Limits = Limits()


class VectorConfig(Config):
    limits: Limits = Limits()
