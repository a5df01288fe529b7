"""How TAPE's answers are read. What a model wrote never raises: it is a value, or missing with a reason that can be counted."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import BaseModel, Field

from recsys.data.text import clean_text
from recsys.generation.formats import MAX_CHARS, LineFormat, UnusableAnswerError
from recsys.generation.likelihood import option_scores
from recsys.generation.repetition import is_repetitive
from recsys.graph.tape_prompt import ExplainTask

LONGEST, FEWEST_WORDS = 1500, 3
"""Characters and words of an explanation."""


@dataclass(frozen=True)
class Explained:
    """labels: those of the set, the likeliest first, each once; at least one."""

    labels: tuple[str, ...]
    explanation: str


class _Lines(BaseModel):
    labels: list[str] = Field(min_length=1)
    explanation: str


class ExplainedFormat:
    """The two lines that `ExplainTask.ask` asks for.

    A label outside the set is left out; an answer without any of the set is not usable, nor is one whose explanation is
    empty, too long or runs in circles.
    """

    def __init__(self, task: ExplainTask) -> None:
        self._lines = LineFormat(_Lines)
        self._known = {_plain(label): label for label in task.labels}
        self._top = task.top

    @property
    def reminder(self) -> str:
        return f"{self._lines.reminder}\nThe labels are some of: {'; '.join(self._known.values())}."

    def parse(self, text: str) -> Explained:
        """Raises UnusableAnswerError."""
        found = self._lines.parse(text)
        labels = dict.fromkeys(self._known[plain] for label in found.labels if (plain := _plain(label)) in self._known)
        if not labels:
            raise UnusableAnswerError("no label of the set")
        return Explained(tuple(labels)[: self._top], explanation_of(found.explanation))


class WhyFormat:
    """An explanation and nothing else, as `ExplainTask.ask_why` asks for it."""

    reminder = "Answer with one or two sentences, and nothing else."

    def parse(self, text: str) -> str:
        """Raises UnusableAnswerError."""
        if len(text) > MAX_CHARS:
            raise UnusableAnswerError("repetition" if is_repetitive(text[:MAX_CHARS]) else "too long")
        return explanation_of(text)


class ScoresFormat:
    """A likelihood an option, as `recsys.generation.likelihood` writes them."""

    reminder = ""

    def __init__(self, options: int) -> None:
        self._options = options

    def parse(self, text: str) -> list[float]:
        """Raises UnusableAnswerError."""
        return option_scores(text, self._options)


def explanation_of(text: str) -> str:
    """One clean line, cut after its last whole sentence. Raises UnusableAnswerError: nothing to read."""
    if is_repetitive(text):
        raise UnusableAnswerError("repetition")
    line = clean_text(text)
    if len(line) > LONGEST:
        line = line[:LONGEST]
    # An answer that was cut ends in the middle of a sentence; where there is a whole one before, that one is kept.
    if not line.endswith((".", "!", "?", '"', ")")) and (ends := list(re.finditer(r"[.!?](?=\s)", line))):
        line = line[: ends[-1].end()]
    if len(line.split()) < FEWEST_WORDS:
        raise UnusableAnswerError("no explanation")
    return line


def _plain(label: str) -> str:
    return re.sub(r"[\W_]+", " ", label).strip().casefold()
