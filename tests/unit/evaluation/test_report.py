import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from recsys.evaluation.projection import map_2d
from recsys.evaluation.report import (
    Curve,
    DataFacts,
    ItemMap,
    Measure,
    ModelRow,
    PopularityRecall,
    Recommended,
    Report,
    Sample,
    SignificanceRow,
    StageRow,
    markdown,
    write_report,
    write_report_json,
    write_report_markdown,
)
from recsys.testing.reports import example_report

EVIL = "<script>alert(1)</script> $x_1$ \"' & | ]]>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, example_report())
    return path.read_text()


def test_equal_reports_give_equal_bytes(page: str, tmp_path: Path):
    write_report(tmp_path / "again.html", example_report())
    assert (tmp_path / "again.html").read_text() == page


def test_the_page_needs_nothing_else(page: str):
    assert not re.search(r"<(script|link|img|iframe|object|embed)\b|@import|\bsrc=|url\((?!#)", page, flags=re.IGNORECASE)
    assert set(re.findall(r'(?:xlink:)?href="(.)', page)) <= {"#"}


def test_all_sections_stand(page: str):
    assert re.findall(r'<section id="(\w+)"', page) == ["results", "significance", "popularity", "training", "map", "samples", "data", "lineage"]
    assert page.count("<figure") == page.count("<figcaption") == page.count("<svg") == 5


def test_plots_are_well_formed_with_unique_ids_and_no_placeholder_left(page: str):
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(svg)
        assert not re.search(r"#0[1-6]0[0-9a-f]{3}\b", svg)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {r[1:] for r in re.findall(r'href="(#[^"]+)"', page)} <= set(ids)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def test_untrusted_text_stays_text_everywhere(tmp_path: Path):
    row = ModelRow(EVIL, Measure(0.1, 0.0, 0.2), Measure(0.1, 0.0, 0.2), None, 1.0)
    report = Report(
        title=EVIL,
        created=EVIL,
        summary=EVIL,
        data=DataFacts(EVIL, 1, 1, 1, EVIL, EVIL, {EVIL: 1}),
        models=(row,),
        curves=(Curve(EVIL, (1, 2), (1.0, 0.5), (0.1, 0.2)),),
        popularity=PopularityRecall((EVIL,), (1,), {EVIL: (0.1,)}),
        maps=(ItemMap(EVIL, ((0.0, 0.0), (1.0, 1.0)), (EVIL, "x")),),
        significance=(SignificanceRow(EVIL, EVIL, EVIL, Measure(0.1, 0.0, 0.2), 0.1, 0.1, 0.1, 0.1),),
        stages=(StageRow(EVIL, EVIL, EVIL),),
        spaces={EVIL: EVIL},
        versions={EVIL: EVIL},
        samples=(Sample(EVIL, (EVIL,), (Recommended(EVIL, 1.0, {EVIL: 1.0}),)),),
    )
    write_report(tmp_path / "r.html", report)
    text = (tmp_path / "r.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    parser = _Tags()
    parser.feed(text)
    assert "script" not in parser.tags
    write_report_markdown(tmp_path / "r.md", report)
    assert "<script" not in (tmp_path / "r.md").read_text()


def test_what_is_missing_leaves_no_section_and_no_made_up_number(tmp_path: Path):
    nothing = Measure(float("nan"), float("nan"), float("nan"))
    bare = Report("t", "", DataFacts("d", 0, 0, 0, "p", "h"), (ModelRow("m", nothing, nothing, None, 0.0),))
    write_report(tmp_path / "r.html", bare)
    text = (tmp_path / "r.html").read_text()
    assert re.findall(r'<section id="(\w+)"', text) == ["results", "data"]
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL).lower()
    write_report(tmp_path / "empty.html", dataclasses.replace(bare, models=()))
    write_report_json(tmp_path / "r.json", bare)
    assert json.loads((tmp_path / "r.json").read_text())["models"][0]["ndcg"]["mean"] is None


def test_markdown_has_a_row_a_model():
    text = markdown(example_report())
    assert "| **fused (ID + minilm + smollm2)** | 0.1273 [" in text
    assert text.count("\n| popularity |") == 1


@pytest.mark.parametrize("shape", [(0, 8), (3, 8), (5, 1), (60, 80)])
def test_map_has_two_finite_coordinates_and_is_seeded(shape: tuple[int, int]):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    xy = map_2d(values)
    assert xy.shape == (shape[0], 2)
    assert np.isfinite(xy).all()
    np.testing.assert_array_equal(xy, map_2d(values))


def test_map_falls_back_to_principal_components_for_many_items():
    values = np.random.default_rng(0).normal(size=(5001, 4)).astype(np.float32) * [5, 3, 1, 1]
    xy = map_2d(values)
    assert abs(np.corrcoef(xy[:, 0], values[:, 0])[0, 1]) > 0.95
