"""Python blocks run, page by page, as a reader would type them; where that would train or ask a language model, their imports do."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import recsys
from infra.docs import blocks
from recsys.data.catalog import ItemCatalog
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from tests.serving import making
from tests.unit.docs.reading import PAGES, whole

IDS = ["50", "172", "181", "i1", "i5"]


def movies() -> ItemCatalog:
    """As many items as the small model of the service has, some by the names that the pages use."""
    ids = [*IDS, *(f"m{n}" for n in range(making.N_ITEMS - len(IDS)))]
    columns = {"title": [f"Film {n}" for n in range(len(ids))], "year": ["1990"] * len(ids), "categories": [["Drama"]] * len(ids)}
    return ItemCatalog(pl.DataFrame({"item_id": ids, **columns}))


@pytest.fixture
def small_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "catalog", movies)
    monkeypatch.setattr(making, "users", lambda: Vocabulary(["196", *(f"u{n}" for n in range(making.N_USERS - 1))]))
    monkeypatch.setattr(making, "histories", lambda: Sequences.of_rows([[1, 2, 3]] * making.N_USERS))
    model = making.recommender(tmp_path)
    asked: list[str] = []

    def load(uri: str | Path, **_: Any) -> Any:
        asked.append(str(uri))
        assert str(uri).startswith("models:/")
        return model

    monkeypatch.setattr(recsys, "load", load)


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if whole(name) and "```python" in text])
def test_run(page: str, small_model: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks.blocks(PAGES[page], "python"):
        exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), names)


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if not whole(name) and "```python" in text])
def test_imports(page: str) -> None:
    for block in blocks.blocks(PAGES[page], "python"):
        tree = ast.parse(block.code)
        imports = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        exec(compile(imports, page, "exec"), {})
