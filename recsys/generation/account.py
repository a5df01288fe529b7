"""What an endpoint cost so far, and the cap it may not pass."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from recsys.errors import RecsysError

_MILLION = 1_000_000


class BudgetError(RecsysError):
    """The next request could cost more than what is left of the budget."""


@dataclass(frozen=True)
class Usage:
    """Figures of an account at one moment. `cost` in the currency of the prices."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    estimated: int
    """Requests whose server stated no usage: they are counted at the most they can have taken."""


class Account:
    """Counts tokens and money; safe under threads.

    prompt_price, completion_price: per million tokens. budget: None is no cap.
    """

    def __init__(self, prompt_price: float = 0.0, completion_price: float = 0.0, budget: float | None = None) -> None:
        self._prompt_price, self._completion_price, self._budget = prompt_price, completion_price, budget
        self._lock = threading.Condition()
        self._reserved, self._out = 0.0, 0
        self._requests = self._prompt_tokens = self._completion_tokens = self._estimated = 0

    def cost_of(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self._prompt_price + completion_tokens * self._completion_price) / _MILLION

    @contextmanager
    def reserved(self, prompt_tokens: int, completion_tokens: int) -> Iterator[None]:
        """Holds back what a request may cost at most while it is out: many at once cannot pass the cap together. Near the cap it waits for those under way.

        Raises:
            BudgetError: not enough is left; nothing was sent then.
        """
        most = self.cost_of(prompt_tokens, completion_tokens)
        with self._lock:
            while self._budget is not None and self._spent() + self._reserved + most > self._budget:
                if self._spent() + most > self._budget or not self._out:
                    raise BudgetError(
                        f"the budget of {self._budget:g} is used up: {self._spent():.6g} spent in {self._requests} requests, and the next may cost {most:.6g}; "
                        "what was answered is kept: raise the budget and run again"
                    )
                self._lock.wait()
            self._reserved += most
            self._out += 1
        try:
            yield
        finally:
            with self._lock:
                self._out -= 1
                self._reserved = self._reserved - most if self._out else 0.0  # no rounding is left over
                self._lock.notify_all()

    def add(self, prompt_tokens: int, completion_tokens: int, *, estimated: bool = False) -> None:
        """One answered request."""
        with self._lock:
            self._requests += 1
            self._prompt_tokens += prompt_tokens
            self._completion_tokens += completion_tokens
            self._estimated += estimated

    @property
    def usage(self) -> Usage:
        with self._lock:
            return Usage(self._requests, self._prompt_tokens, self._completion_tokens, self._spent(), self._estimated)

    def _spent(self) -> float:
        return self.cost_of(self._prompt_tokens, self._completion_tokens)
