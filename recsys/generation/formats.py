"""How an answer is read: `JsonFormat`, one JSON object, and `LineFormat`, lines of `Label: value` for small models."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin

import pydantic

from recsys.errors import ConfigError
from recsys.generation.repetition import is_repetitive

T_co = TypeVar("T_co", covariant=True)
M = TypeVar("M", bound=pydantic.BaseModel)
MAX_CHARS = 20_000
"""Of an answer that is looked at: 10,000 tokens of nonsense are refused, not searched."""
_STARTS = 16


class UnusableAnswerError(Exception):
    """Why an answer cannot be used: a short reason without the answer's own words, so that reasons can be counted."""


class AnswerFormat(Protocol[T_co]):
    """Text to value."""

    @property
    def reminder(self) -> str:
        """What is added to the prompt the second time."""
        ...

    def parse(self, text: str) -> T_co:
        """Raises UnusableAnswerError."""
        ...


class JsonFormat:
    """The first JSON object in the text, whatever stands around it, checked by a JSON schema; gives a dict.

    Raises:
        ConfigError: the schema is none.
    """

    def __init__(self, schema: Mapping[str, Any], *, max_chars: int = MAX_CHARS) -> None:
        import jsonschema

        self._max_chars = max_chars
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        try:
            kind.check_schema(schema)
        except jsonschema.exceptions.SchemaError as error:
            raise ConfigError(f"not a JSON schema: {error.message}") from None
        self._validator = kind(schema)
        self.reminder = _json_reminder(list(schema.get("properties", {})))

    def parse(self, text: str) -> dict[str, Any]:
        found = first_object(text, self._max_chars)
        error = next(iter(self._validator.iter_errors(found)), None)
        if error is not None:
            raise UnusableAnswerError(f"schema: {'.'.join(str(part) for part in error.absolute_path) or 'object'} fails {error.validator}")
        return found


class ModelFormat(AnswerFormat[M]):
    """The first JSON object in the text as a pydantic model."""

    def __init__(self, model: type[M], *, max_chars: int = MAX_CHARS) -> None:
        self._model, self._max_chars = model, max_chars

    @property
    def reminder(self) -> str:
        return _json_reminder(_names(self._model))

    def parse(self, text: str) -> M:
        return _validated(self._model, first_object(text, self._max_chars))


class LineFormat(AnswerFormat[M]):
    """Lines of `Label: value` as a pydantic model with fields of text, number or lists: what models of a hundred million parameters can write.

    A label is a field's alias or name (`_` as space), in any case, with bullets or asterisks around it. A value goes to the next label;
    the first of two equal labels counts. Values of list fields are split at commas, semicolons and line breaks, and lose their numbering.
    """

    def __init__(self, model: type[M], *, max_chars: int = MAX_CHARS) -> None:
        self._model, self._max_chars = model, max_chars
        self._names = {name.replace("_", " ").casefold(): name for name in _names(model)}
        self._lists = {field.alias or name for name, field in model.model_fields.items() if _is_list(field.annotation)}
        labels = "|".join(re.escape(label).replace(r"\ ", r"[ _]") for label in sorted(self._names, key=len, reverse=True))
        self._label = re.compile(rf"^[^\w\n]{{0,8}}({labels})[*_\"' \t]{{0,4}}:[*_ \t]{{0,4}}", re.IGNORECASE | re.MULTILINE)

    @property
    def reminder(self) -> str:
        lines = "\n".join(f"{name.replace('_', ' ').capitalize()}: ..." for name in _names(self._model))
        return f"Answer with these lines only, and nothing else:\n{lines}"

    def parse(self, text: str) -> M:
        _require_short(text, self._max_chars)
        found = list(self._label.finditer(text))
        values: dict[str, Any] = {}
        ends = [*(match.start() for match in found), len(text)][1:]
        for match, end in zip(found, ends, strict=False):
            name = self._names[match.group(1).replace("_", " ").casefold()]
            value = text[match.end() : end].strip()
            if value.strip(" .…_<>[]") and name not in values:  # "..." is the reminder's own, copied
                values[name] = _items(value) if name in self._lists else value
        if not values:
            raise UnusableAnswerError("repetition" if is_repetitive(text) else "no labelled line")
        return _validated(self._model, values)


def first_object(text: str, max_chars: int = MAX_CHARS) -> dict[str, Any]:
    """The first JSON object in a text. Raises UnusableAnswerError: too long, none, or one that repeats itself."""
    _require_short(text, max_chars)
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    start = text.find("{")
    for _ in range(_STARTS):  # bounded: a thousand open braces are no thousand tries
        if start < 0:
            break
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        if is_repetitive(text[start:end]):
            raise UnusableAnswerError("repetition")
        _require_text(found)
        assert isinstance(found, dict)
        return found
    raise UnusableAnswerError("repetition" if is_repetitive(text) else "no JSON object")


def one_of(labels: Sequence[str]) -> pydantic.BeforeValidator:
    """A field's text is one of the labels, whatever its case, quotes or final stop; anything else is refused.

    `class Answer(BaseModel): genre: Annotated[str, one_of(["Comedy", "Crime"])]`. Raises ConfigError: no labels, or two that differ in case only.
    """
    known = {_plain(label): label for label in labels}
    if not known or len(known) != len(labels):
        raise ConfigError(f"labels {list(labels)[:5]}: expected at least one, and no two that differ by case or punctuation alone")

    def check(value: object) -> str:
        label = known.get(_plain(value)) if isinstance(value, str) else None
        if label is None:
            raise ValueError("not one of the labels")
        return label

    return pydantic.BeforeValidator(check)


def _plain(text: str) -> str:
    return text.strip().strip("\"'`*.,;:!() ").casefold()


def _validated(model: type[M], values: dict[str, Any]) -> M:
    try:
        found = model.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise UnusableAnswerError(f"schema: {'.'.join(str(part) for part in first['loc']) or 'object'} {first['type']}") from None
    for value in values.values():
        if isinstance(value, str) and is_repetitive(value):
            raise UnusableAnswerError("repetition")
    return found


def _require_short(text: str, max_chars: int) -> None:
    if len(text) > max_chars:
        raise UnusableAnswerError("repetition" if is_repetitive(text[:max_chars]) else "too long")


def _require_text(value: object) -> None:
    """Raises UnusableAnswerError for half of a surrogate pair, which no file can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnusableAnswerError("broken text") from None


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _json_reminder(names: Sequence[str]) -> str:
    keys = f" with the keys {', '.join(json.dumps(name) for name in names)}" if names else ""
    return f"Answer with one JSON object{keys} only: begin with {{, end with }}, and write nothing else."


def _names(model: type[pydantic.BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _is_list(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return False
    return annotation in (list, tuple, set) or get_origin(annotation) in (list, tuple, set, frozenset) or any(map(_is_list, get_args(annotation)))


def _items(value: str) -> list[str]:
    parts = (re.sub(r"^[\s\-*•]*(?:\d{1,2}[.)])?\s*", "", part).strip() for part in re.split(r"[,;\n]", value))
    return [part for part in parts if part]
