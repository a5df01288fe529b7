"""The seam between prompts and texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from recsys.generation.prompt import Prompt

Finish = Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer. LLM output is data: nothing in `text` is ever interpreted."""

    text: str
    finish: Finish
    """stop: the model ended it, or a stop string (which is left out); length: cut at `max_new_tokens`; error: there is none."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """With the token that ended it."""
    logprob: float | None = None
    """Sum over the completion's tokens, natural logarithm; None: not asked for."""
    error: str = ""
    """The reason, with `finish` "error" only: this prompt cannot be answered, whatever the others do."""


OnDone = Callable[[int, Generation], None]
"""Called once a prompt, with its position, as soon as its answer is there; in any order, never twice at the same time."""


@runtime_checkable
class Generator(Protocol):
    """Prompts to texts. Greedy answers do not depend on what else is in the batch, within the dtype's tolerance."""

    @property
    def generator_id(self) -> str:
        """Hash of everything that can move an answer."""
        ...

    def generate(self, prompts: Sequence[Prompt], *, on_done: OnDone | None = None) -> list[Generation]:
        """One answer a prompt, in the order of the prompts. A prompt that cannot be answered has `finish` "error".

        Raises:
            RetryableError: the endpoint did not answer after all retries; what was done until then went to `on_done`.
            BudgetError: the money is spent.  NonFiniteError: the model computes NaN.
        """
        ...
