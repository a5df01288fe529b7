"""The reference of the service, made of the OpenAPI document that it answers at /openapi.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.docs.markup import docstring, escaped

METHODS = ("get", "post", "put", "patch", "delete")
Document = Mapping[str, Any]


def document() -> dict[str, Any]:
    """Of a service over a stand-in of a model: the paths and schemas do not depend on it."""
    from unittest.mock import MagicMock

    from recsys.serving.app import create_app

    model = MagicMock()
    model.name, model.version = "NAME", "VERSION"
    return dict(create_app(model).openapi())


def page(found: Document) -> str:
    lines = [
        "# The service",
        "",
        "Made of the OpenAPI document by `make docs`; do not edit. A running service shows the same at `/docs`, and answers it at `/openapi.json`;",
        "here it is [openapi.json](openapi.json).",
        "",
    ]
    for path, operations in found["paths"].items():
        for method in METHODS:
            if method in operations:
                lines += _operation(method, path, operations[method])
    lines += ["## Schemas { #schemas }", ""]
    for name, schema in sorted(found.get("components", {}).get("schemas", {}).items()):
        lines += [f"### {name} {{ #{name} }}", "", docstring(schema.get("description")), "", *_properties(schema), ""]
    return "\n".join(lines) + "\n"


def write(folder: Path) -> None:
    found = document()
    (folder / "openapi.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "http.md").write_text(page(found), encoding="utf-8")


def _operation(method: str, path: str, operation: Document) -> Iterator[str]:
    identity = f"{method}-{path.strip('/').replace('/', '-').replace('{', '').replace('}', '')}"
    yield from [f"## {method.upper()} `{path}` {{ #{identity} }}", "", f"{escaped(operation.get('summary', ''))}.", ""]
    yield from [docstring(operation.get("description")), ""]
    for parameter in operation.get("parameters", []):
        needed = ", needed" if parameter.get("required") else ""
        told = escaped(parameter.get("description", "") or parameter.get("schema", {}).get("description", ""))
        yield f"- `{parameter['name']}` ({parameter['in']}{needed}): {_type(parameter.get('schema', {}))} {told}"
    if body := operation.get("requestBody"):
        yield from (f"- body: {kind}, {_type(content.get('schema', {}))}" for kind, content in body["content"].items())
    for status, answer in operation.get("responses", {}).items():
        kinds = [f"{kind}, {_type(content['schema'])}" for kind, content in answer.get("content", {}).items() if content.get("schema")]
        yield f"- {status}: {escaped(answer.get('description', ''))}" + (f" ({'; '.join(kinds)})" if kinds else "")
    yield ""


def _properties(schema: Document) -> Iterator[str]:
    needed = set(schema.get("required", ()))
    for name, part in schema.get("properties", {}).items():
        told = escaped(" ".join(part.get("description", "").split()))
        default = f" Default: `{json.dumps(part['default'])}`." if "default" in part else ""
        yield f"- `{name}`{', needed' if name in needed else ''}: {_type(part)} {told}{default}{_limits(part)}"


def _limits(part: Document) -> str:
    names = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "minLength": "characters from", "maxLength": "characters to"}
    names |= {"minItems": "items from", "maxItems": "items to"}
    options = [part, *part.get("anyOf", [])]
    found = [f"{words} {option[key]:,}" for option in options for key, words in names.items() if isinstance(option.get(key), int | float)]
    return f" Limits: {', '.join(found)}." if found else ""


def _type(schema: Document) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name})"
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    kind = schema.get("type", "object" if "properties" in schema else "any value")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"mapping of {_type(schema['additionalProperties'])}"
    return str(kind)
