"""A generator that answers by a function, and counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recsys.generation.generator import Generation, OnDone
from recsys.generation.prompt import Prompt


class FakeGenerator:
    """`answer(prompt)` is the text, or the whole Generation. `asked` holds every prompt so far."""

    def __init__(self, answer: Callable[[Prompt], str | Generation], generator_id: str = "fake") -> None:
        self.generator_id = generator_id
        self.asked: list[Prompt] = []
        self._answer = answer

    def generate(self, prompts: Sequence[Prompt], *, on_done: OnDone | None = None) -> list[Generation]:
        answers = []
        for number, prompt in enumerate(prompts):
            self.asked.append(prompt)
            found = self._answer(prompt)
            answers.append(Generation(found, "stop", 2, 3) if isinstance(found, str) else found)
            if on_done is not None:
                on_done(number, answers[-1])
        return answers
