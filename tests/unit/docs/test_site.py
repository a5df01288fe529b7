"""Links, diagrams, and figures that are collected from records."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

from infra.docs import diagrams, links, markup, results
from infra.docs.__main__ import GENERATED, ROOT, not_in_navigation
from infra.docs.results import METHODS, NOTHING
from tests.unit.docs.reading import PAGES


def test_broken_links_and_anchors_are_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top"></h1><a href="a/b.html#there">1</a><a href="a/b.html#gone">2</a><a href="a/none.html">3</a><a href="#top">4</a>'
        '<a href="https://example.com/x">5</a><a href="../outside.html">6</a><img src="a/p%20q.png"><a href="a/">7</a>'
        '<script src="https://example.com/a.js"></script>'
    )
    (tmp_path / "a" / "b.html").write_text('<p id="there"></p><a href="../index.html#top">1</a><a href="/index.html">2</a>')
    (tmp_path / "a" / "index.html").write_text("")
    (tmp_path / "a" / "p q.png").write_bytes(b"")
    assert links.broken(tmp_path) == [
        "index.html: 'a/b.html#gone': no such anchor",
        "index.html: 'a/none.html': no such file",
        "index.html: '../outside.html': no such file",
        "index.html: 'https://example.com/a.js': fetched from another host",
    ]


def test_links_of_pages_that_no_site_is_built_of() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#\s]+)", PAGES[name]):
            assert link.startswith("http") or (ROOT / link).exists(), f"{name}: {link}"


def test_links_between_pages() -> None:
    """Without a build: the pages themselves; `make docs` also checks anchors and what is generated."""
    for name, text in PAGES.items():
        for link in re.findall(r"\]\(([^)#\s]+\.md)", text):
            target = ((ROOT / name).parent / link).resolve()
            generated = target.is_relative_to(ROOT / "docs") and target.relative_to(ROOT / "docs").parts[0] in GENERATED
            assert generated or link.startswith("http") or target.is_file(), f"{name}: {link}"


def test_navigation_names_pages_that_exist() -> None:
    for page in re.findall(r"[ :]([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE):
        assert page.split("/")[0] in GENERATED or (ROOT / "docs" / page).is_file(), page


def test_pages_outside_the_navigation_are_told(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text("")
    (tmp_path / "lost.md").write_text("")
    assert not_in_navigation(tmp_path) == ["lost.md"]


def test_diagrams_stand_as_they_are_made() -> None:
    for name, text in diagrams.all_diagrams().items():
        assert (diagrams.FOLDER / name).read_text(encoding="utf-8") == text, "run: python -m infra.docs.diagrams"
        root = ElementTree.fromstring(text)
        left, top, width, height = map(float, root.attrib["viewBox"].split())
        for box in root.iter("{http://www.w3.org/2000/svg}rect"):
            x, y, w, h = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
            assert left <= x and top <= y and x + w <= left + width and y + h <= top + height


def test_docstrings_as_markdown() -> None:
    told = markup.docstring(
        "Rows are item_num.\n\nx: float (n, d).\ny: `code_x` stays.\n\nRaises:\n    DataError: none,\n        or too many.\n    ConfigError: a < b."
    )
    assert told == (
        "Rows are item&#95;num.\n\nx: float (n, d).  \ny: `code_x` stays.\n\n**Raises**\n\n- DataError: none, or too many.\n- ConfigError: a &lt; b."
    )
    assert markup.docstring(">>> 1 + 1\n2") == "```pycon\n>>> 1 + 1\n2\n```"


def test_results_are_the_records(tmp_path: Path) -> None:
    board = tmp_path / "shop"
    board.mkdir()
    for seed, value in enumerate((0.1, 0.2)):
        figures = {"metrics": {"recall@10": value, "ndcg@10": value / 2}, "parameters": 1234, "train_seconds": 10.0, "inference_ms_per_user": 0.5}
        (board / f"lite_free-seed{seed}.json").write_text(json.dumps({"model": "lite_free", "label": "Lite", **figures}))
    page = results.page(tmp_path)
    assert "| shop | Lite (`lite_free`) | 2 | 0.1500 ± 0.0707 | 0.0750 ± 0.0354 | 1,234 | 10 | 0.50 |" in page
    assert page.count(NOTHING) == len(METHODS) - 1


def test_methods_of_the_pages_have_results_or_say_that_there_are_none() -> None:
    named = set(re.findall(r"measured/methods\.md#([\w-]+)", "\n".join(PAGES.values())))
    assert named <= {method.slug for method in METHODS} and len(named) >= 8
