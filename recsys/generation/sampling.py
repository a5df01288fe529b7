"""`Sampling`: how tokens are chosen and when an answer ends."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys.config import Config


class Sampling(Config):
    """Greedy by default. All fields decide the answers."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    """0: the most probable token each time (the first of equals)."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the smallest set of tokens that holds this probability (Holtzman et al., 2020)."""
    seed: int = 0
    """With a temperature: each prompt draws from its own stream, so that its neighbours in the batch do not matter."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """The answer ends before the first of these."""
    logprobs: bool = False
    """Whether each answer states the sum of its tokens' log-probabilities (of the model itself: temperature 1, no top_p)."""
