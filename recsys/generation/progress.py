"""`Progress`: an `on_done` that counts, for a progress bar and a tokens/s figure."""

from __future__ import annotations

import time
from collections.abc import Callable

from recsys.generation.generator import Generation, OnDone

Report = Callable[[int, int, int], None]
"""(prompts done, prompts in all, completion tokens so far)."""


class Progress:
    """`generator.generate(prompts, on_done=Progress(len(prompts), report))`; `then` is called afterwards with the same arguments.

    Prompts that are asked again count again, and raise `total`.
    """

    def __init__(self, total: int, report: Report | None = None, *, then: OnDone | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        self.total = total
        self.done = self.tokens = 0
        self._report, self._then, self._clock = report, then, clock
        self._started = clock()

    def __call__(self, number: int, generation: Generation) -> None:
        self.done += 1
        self.total = max(self.total, self.done)
        self.tokens += generation.completion_tokens
        if self._report is not None:
            self._report(self.done, self.total, self.tokens)
        if self._then is not None:
            self._then(number, generation)

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens a second since this object was made; an answer from the cache counts with its tokens."""
        return self.tokens / max(self._clock() - self._started, 1e-9)
