"""`generate_validated`: answers as checked values, or missing with a reason. Bad answers never raise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import pydantic

from recsys.generation.formats import AnswerFormat, JsonFormat, ModelFormat, UnusableAnswerError
from recsys.generation.generator import Generation, Generator, OnDone
from recsys.generation.prompt import Prompt

T = TypeVar("T")
M = TypeVar("M", bound=pydantic.BaseModel)


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What came of one prompt."""

    value: T | None
    """None: missing."""
    reason: str
    """Why it is missing, of the last try; "" where it is not."""
    generation: Generation
    """The text of the last try."""
    tries: int


@dataclass(frozen=True, slots=True)
class Validated(Generic[T]):
    """The answers, in the order of the prompts, and what they cost."""

    answers: list[Answer[T]]
    prompt_tokens: int
    completion_tokens: int

    @property
    def values(self) -> list[T | None]:
        return [answer.value for answer in self.answers]

    @property
    def valid(self) -> int:
        return sum(answer.value is not None for answer in self.answers)

    @property
    def retried(self) -> int:
        return sum(answer.tries > 1 for answer in self.answers)

    @property
    def reasons(self) -> dict[str, int]:
        """How many are missing for each reason, the most frequent first."""
        return dict(Counter(answer.reason for answer in self.answers if answer.value is None).most_common())


@overload
def generate_validated(
    generator: Generator, prompts: Sequence[Prompt], schema: type[M], *, retries: int = 1, on_done: OnDone | None = None
) -> Validated[M]: ...
@overload
def generate_validated(
    generator: Generator, prompts: Sequence[Prompt], schema: Mapping[str, Any], *, retries: int = 1, on_done: OnDone | None = None
) -> Validated[dict[str, Any]]: ...
@overload
def generate_validated(
    generator: Generator, prompts: Sequence[Prompt], schema: AnswerFormat[T], *, retries: int = 1, on_done: OnDone | None = None
) -> Validated[T]: ...
def generate_validated(generator: Generator, prompts: Sequence[Prompt], schema: Any, *, retries: int = 1, on_done: OnDone | None = None) -> Validated[Any]:
    """Generate, read by `schema` (a pydantic model, a JSON schema, or an `AnswerFormat`), and ask again with a reminder where that fails.

    After `retries` a prompt's value is None, with the reason. A prompt that cannot be answered at all (too long) is not asked again.
    on_done: as in `Generator.generate`, for the first try of each prompt and then for each one asked again.

    Raises:
        What `Generator.generate` raises, and ConfigError for a schema that is none; never for what a model wrote.
    """
    form = _format(schema)
    answers: list[Answer[Any] | None] = [None] * len(prompts)
    pending = list(range(len(prompts)))
    prompt_tokens = completion_tokens = 0
    for tries in range(1, retries + 2):
        if not pending:
            break
        asked = [prompts[number] if tries == 1 else prompts[number].reminded(form.reminder) for number in pending]
        places = tuple(pending)
        found = generator.generate(asked, on_done=_placed(on_done, places))
        for number, generation in zip(places, found, strict=True):
            prompt_tokens += generation.prompt_tokens
            completion_tokens += generation.completion_tokens
            answers[number] = _read(form, generation, tries)
        pending = [number for number, generation in zip(places, found, strict=True) if generation.finish != "error" and _missing(answers[number])]
    return Validated([answer for answer in answers if answer is not None], prompt_tokens, completion_tokens)


def _placed(on_done: OnDone | None, places: tuple[int, ...]) -> OnDone | None:
    """`on_done` with the positions among all prompts."""
    if on_done is None:
        return None
    return lambda place, generation: on_done(places[place], generation)


def _format(schema: Any) -> AnswerFormat[Any]:
    if isinstance(schema, type) and issubclass(schema, pydantic.BaseModel):
        return ModelFormat(schema)
    return JsonFormat(schema) if isinstance(schema, Mapping) else schema


def _missing(answer: Answer[Any] | None) -> bool:
    return answer is None or answer.value is None


def _read(form: AnswerFormat[Any], generation: Generation, tries: int) -> Answer[Any]:
    if generation.finish == "error":
        return Answer(None, f"no answer: {generation.error}", generation, tries)
    try:
        return Answer(form.parse(generation.text), "", generation, tries)
    except UnusableAnswerError as error:
        cut = ", cut at max_new_tokens" if generation.finish == "length" else ""
        return Answer(None, f"{error}{cut}", generation, tries)
