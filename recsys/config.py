"""Typed, frozen configuration: one small class a component, an unknown key is an error that lists the known ones."""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, Self

import pydantic
import yaml

from recsys.errors import ConfigError


class Config(pydantic.BaseModel):
    """Base of every component's configuration. Fields are documented under the field."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @classmethod
    def parse(cls, values: object, *, source: str = "config") -> Self:
        """Build from plain values (a parsed YAML or JSON document).

        Raises:
            ConfigError: with the place of each problem, and the known keys where one is unknown.
        """
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            raise ConfigError(f"{source}: " + "; ".join(_explain(cls, e) for e in error.errors())) from None

    @classmethod
    def read(cls, path: Path | str, overrides: list[str] | None = None) -> Self:
        """Read YAML, apply `a.b=c` overrides, validate."""
        return cls.parse(apply_overrides(read_yaml(Path(path)), overrides or []), source=str(path))

    def digest(self) -> str:
        """sha256 of the canonical JSON of all fields."""
        return digest_of(self.model_dump(mode="json"))


def digest_of(value: object) -> str:
    """sha256 of canonical JSON: equal values give equal digests on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_yaml(path: Path) -> dict[str, Any]:
    """Raises ConfigError naming file and line when it cannot be read as a mapping."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, found {type(document).__name__}")
    return document


def apply_overrides(document: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """A copy of `document` with each `a.b=c` set; `c` is read as YAML. Numbers in the path index lists."""
    result: dict[str, Any] = json.loads(json.dumps(document, default=str))
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            raise ConfigError(f"override {override!r}: expected key.sub_key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"override {override!r}: the value is not YAML") from None
        *parents, last = path.split(".")
        node: Any = result
        for key in parents:
            node = _step(node, key, override)
        if isinstance(node, list):
            _step(node, last, override)
            node[int(last)] = value
        elif isinstance(node, dict):
            node[last] = value
        else:
            raise ConfigError(f"override {override!r}: {parents[-1]!r} holds a single value, not keys")
    return result


def _step(node: Any, key: str, override: str) -> Any:
    if isinstance(node, list):
        if not key.isdigit() or int(key) >= len(node):
            raise ConfigError(f"override {override!r}: {key!r} is not a position in a list of {len(node)}")
        return node[int(key)]
    if isinstance(node, dict):
        return node.setdefault(key, {})
    raise ConfigError(f"override {override!r}: nothing below {key!r}")


def _explain(cls: type[pydantic.BaseModel], error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{place}: {error['msg']} (got {error['input']!r})" if place else str(error["msg"])
    known = _known_keys(cls, error["loc"][:-1])
    key = str(error["loc"][-1])
    close = difflib.get_close_matches(key, known, n=1)
    hint = f", did you mean {close[0]!r}?" if close else "."
    return f"{place}: unknown key{hint} Known keys: {', '.join(sorted(known))}"


def _known_keys(cls: type[pydantic.BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Field names of the model at `location`; falls back to the union over a field's possible models."""
    models = [cls]
    for part in location:
        if isinstance(part, int):
            continue
        found = [m for model in models if part in model.model_fields for m in _models_in(model.model_fields[part].annotation)]
        models = found or models
    return sorted({name for model in models for name in model.model_fields})


def _models_in(annotation: Any) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]
