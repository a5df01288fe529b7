"""When to try again: exponential back-off with full jitter, and the server's own Retry-After."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated

from pydantic import Field

from recsys.config import Config


class RetryConfig(Config):
    """Of requests that failed by no fault of their own: no connection, time-out, 408, 409, 429, 5xx, an unreadable answer."""

    retries: Annotated[int, Field(ge=0)] = 6
    first_wait: Annotated[float, Field(gt=0)] = 0.5
    """Seconds; doubled each time, and drawn between 0 and that (Brooker, AWS Architecture Blog, 2015)."""
    longest_wait: Annotated[float, Field(gt=0)] = 60.0
    """Seconds; a server that asks for more ends the run."""


def back_off(config: RetryConfig, attempt: int) -> float:
    """Seconds before try `attempt` + 1, counted from 0. Its randomness moves no result."""
    return random.uniform(0, min(config.longest_wait, config.first_wait * 2.0 ** min(attempt, 60)))


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: a number, or a date); None: none, or not readable."""
    if header is None:
        return None
    text = header.strip()
    try:
        number = text.replace(".", "", 1).isdigit()
        return max(0.0, float(text) if number else (parsedate_to_datetime(text) - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
