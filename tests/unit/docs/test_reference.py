"""Every public name is in the reference, and the examples of docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from types import ModuleType
from typing import Any

import pytest

from infra.docs import cli_reference, http_reference, python_reference
from infra.docs.__main__ import ROOT

PACKAGE = ROOT / "recsys"
SOURCES = {
    ".".join(["recsys", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not any(part.startswith("_") and part != "__init__.py" for part in path.relative_to(PACKAGE).parts)
}


@pytest.fixture(scope="module")
def pages() -> str:
    return "\n".join(python_reference.pages(PACKAGE).values())


def defined(module: ModuleType) -> list[str]:
    """Classes and functions of a module by what Python itself says; the generator reads the source and imports nothing."""
    own = [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and (inspect.isclass(value) or inspect.isroutine(value))
    ]
    return [name for name in own if not name.startswith("_")]


def test_every_public_class_and_function_has_an_entry(pages: str) -> None:
    missing = [f"{name}.{own}" for name in SOURCES for own in defined(importlib.import_module(name)) if f"{{ #{name}.{own} }}" not in pages]
    assert not missing, missing


def test_every_module_has_an_entry(pages: str) -> None:
    assert not [name for name in SOURCES if f"{{ #{name} }}" not in pages]


def test_constants_fields_and_methods_of_a_known_module(pages: str) -> None:
    assert "### MIN_EVENTS { #recsys.data.split.MIN_EVENTS }" in pages
    page = python_reference.pages(PACKAGE)["data.md"]
    split = page[page.index("#recsys.data.split.SplitConfig }") : page.index("#recsys.data.split.Cases }")]
    assert "`held_out_share: Annotated[float, Field(gt=0, lt=1)] = 0.1`" in split and "removes from training" in split
    vocabulary = page[page.index("#recsys.data.vocabulary.Vocabulary }") :]
    assert "def num(self, outside_id: str, *, noun: str = 'item_id') -> int" in vocabulary
    assert "def __init__" not in vocabulary and "_nums" not in vocabulary.split("## ")[0]


def test_a_private_module_is_not_there(pages: str) -> None:
    assert "_recbole_worker" not in re.findall(r"\{ #(\S+) \}", pages)
    assert not [name for name in re.findall(r"\{ #(\S+) \}", pages) if any(part.startswith("_") for part in name.split("."))]


def test_every_command_and_option_is_in_the_reference() -> None:
    page = cli_reference.page()
    for name, command in cli_reference.commands(cli_reference.group()).items():
        section = page[page.index(f"## recsys {name} {{") :].split("\n## ")[0]
        for parameter in command.params:
            assert parameter.name == "help" or all(f"`{option}`" in section for option in parameter.opts if option.startswith("-")), (name, parameter.name)


def test_every_path_and_schema_is_in_the_reference() -> None:
    document: dict[str, Any] = http_reference.document()
    page = http_reference.page(document)
    for path, operations in document["paths"].items():
        for method in operations:
            assert f"## {method.upper()} `{path}`" in page
    for name, schema in document["components"]["schemas"].items():
        section = page[page.index(f"### {name} {{") :].split("\n### ")[0]
        assert all(f"`{field}`" in section for field in schema.get("properties", {}))


EXAMPLES = [name for name, path in SOURCES.items() if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_docstrings_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted and not result.failed


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5
