"""Figures that pages do state are those of the benchmarks' records, within what a repetition may move them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from infra.docs.__main__ import ROOT
from tests.unit.docs.reading import PAGES

TOLERANCE = 0.25
ITEMS, EVENTS, HOUR = 100e6, 1e9, 3600.0


def result(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def point(stage: str) -> Any:
    """The largest of the sweep."""
    return max((row for row in result("scaling")["points"] if row["stage"] == stage), key=lambda row: row["interactions"])


def many() -> Any:
    return max(result("engine")["many_items"], key=lambda row: row["items"])


def embed_hours(model: str) -> float:
    found = result("embedding")
    seconds = min(row["seconds"] for row in found["side_by_side"] if row["model"] == model and row["who"].startswith("ours"))
    return float(seconds / found["texts"] * ITEMS / HOUR)


FIGURES: dict[str, Callable[[], float]] = {
    r"\| ([\d.]+) h of one such machine": lambda: embed_hours("MiniLM"),
    r"in 53\.82 s on 2 cores \| ([\d.]+) h;": lambda: embed_hours("SmolLM2"),
    r"\| ([\d.]+) min; the limit of one driver": lambda: ITEMS / many()["items_per_second"] / 60,
    r"bytes an item at the peak \| ([\d.]+) GB": lambda: many()["peak_bytes_an_item"] * ITEMS / 1e9,
    r"3\.8 GB \| ([\d.]+) min, \*\*378 GB": lambda: point("ingest")["seconds"] / point("ingest")["interactions"] * EVENTS / 60,
    r"33 min, \*\*([\d.]+) GB of memory": lambda: point("ingest")["peak_mb"] / point("ingest")["interactions"] * EVENTS / 1e3,
    r"2\.6 GB \| ([\d.]+) min, ": lambda: point("split")["seconds"] / point("split")["interactions"] * EVENTS / 60,
    r"1 M items: ([\d.]+) ns a pair": lambda: point("evaluation")["seconds"] / 2000 / point("evaluation")["items"] * 1e9,
    r"full windows of 50: ([\d.]+) h at least": lambda: point("training")["seconds"] / 20 * EVENTS / 50 / 128 / HOUR,
}


@pytest.mark.parametrize("pattern", FIGURES)
def test_beyond_one_machine(pattern: str) -> None:
    found = re.search(pattern, PAGES["docs/scaling.md"])
    assert found, "the page no longer states this figure"
    assert float(found[1]) == pytest.approx(FIGURES[pattern](), rel=TOLERANCE)


def test_actors() -> None:
    rates = {row["actors"]: row["items_per_second"] for row in result("engine")["scaling"]}
    found = re.search(r"1, 2, 4 and 8 actors give ([\d, and]+) items a second", PAGES["docs/how-to/ray_cluster.md"])
    assert found
    stated = [float(number) for number in re.findall(r"\d+(?:,\d{3})*", found[1].replace("1,212", "1212"))]
    assert stated == pytest.approx([rates[actors] for actors in (1, 2, 4, 8)], rel=TOLERANCE)


def test_speed_side_by_side() -> None:
    text = PAGES["docs/peers.md"]
    sasrec = next(
        row for row in result("training")["to_the_same_validation_ndcg@10"] if (row["data"], row["model"], row["peer"]) == ("ml-100k", "SASRec", "RecTools")
    )
    found = re.search(r"SASRec took (\d+) s here\s+and (\d+) s there", text)
    assert found and [float(part) for part in found.groups()] == pytest.approx([sasrec["ours_seconds"], sasrec["peer_seconds"]], rel=TOLERANCE)
