"""The checks: what they find on days that are spoilt in one way each, and that honest days pass."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipelines import inspection
from pipelines.inspection import centre_shift, changed_items, inspect_vectors, popularity_shift, stability_index
from pipelines.inspection_config import InspectConfig, Limits
from pipelines.progress import SilentReporter
from recsys.artifacts.atomic import read_json
from recsys.data.catalog import ItemCatalog
from recsys.errors import DataError
from tests.integration import days


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return days.shop(tmp_path, 4)


def inspect(shop: Path, tmp_path: Path, **limits: Any) -> dict[str, dict[str, Any]]:
    values = {"source": days.config(shop)["data"]["source"], "day": str(days.day(3)), "limits": {"popularity": 1.0, **limits}}
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    inspection.run(InspectConfig.parse(values), {}, folder, SimpleNamespace(reporter=SilentReporter()))  # type: ignore[arg-type]
    return {found["name"]: found for found in read_json(folder / inspection.REPORT)}


def spoil(shop: Path, change: Any) -> None:
    file = shop / "events" / f"{days.day(3)}.csv"
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([head, *change(rows)]) + "\n")


def test_an_honest_day_passes(shop: Path, tmp_path: Path) -> None:
    found = inspect(shop, tmp_path)
    assert set(found) == {"rows in quarantine", "volume", "nulls of user_id", "nulls of item_id", "nulls of time", "popularity"}
    assert found["volume"]["value"] == 1.0 and not any(each["violation"] for each in found.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[: len(rows) // 5], r"volume: 36 clean events, usual are 181 \(0.20 times\); the limit is 0.3 to 3 times"),
        (lambda rows: [f"{row}{n}" for n in range(4) for row in rows], "volume: 724 clean events"),
        (lambda rows: [row if n % 5 else "u1,unheard-of,1" for n, row in enumerate(rows)], r"rows in quarantine: .*unknown item"),
        (lambda rows: [row if n % 4 else row.rsplit(",", 1)[0] + "," for n, row in enumerate(rows)], "nulls of time: 25.4% of time are missing"),
        (lambda rows: ["u1,i1,not a time"] * len(rows), "volume: 0 clean events"),
        (lambda rows: [",".join((row.split(",")[0], "i3", row.split(",")[2])) for row in rows], "popularity: a stability index of"),
    ],
)  # fmt: skip
def test_a_spoilt_day_is_stopped_and_the_reason_told(shop: Path, tmp_path: Path, change: Any, message: str) -> None:
    spoil(shop, change)
    with pytest.raises(DataError, match=f"nothing is published: .*{message}"):
        inspect(shop, tmp_path)


def test_a_violation_may_only_hold(shop: Path, tmp_path: Path) -> None:
    spoil(shop, lambda rows: rows[:30])
    found = inspect(shop, tmp_path, on_violation="hold")
    assert found["volume"]["violation"].startswith("volume: 30 clean events")


def test_the_stability_index_by_hand() -> None:
    """Two items with 60 and 40 of 100 events before, 40 and 60 now: each is the middle of a group of its own."""
    assert stability_index(np.array([40, 60]), np.array([60, 40])) == pytest.approx(2 * 0.2 * np.log(1.5))
    assert stability_index(np.array([6, 4]), np.array([60, 40])) == pytest.approx(0.0)
    with_new = stability_index(np.array([60, 30, 10]), np.array([60, 40, 0]))
    assert with_new == pytest.approx((0.3 - 0.4) * np.log(0.3 / 0.4) + (0.1 - 0.005) * np.log(0.1 / 0.005))


def test_chance_is_no_shift() -> None:
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.ones(300))

    def day(n: int, p: Any) -> dict[str, int]:
        return dict(zip(map(str, range(300)), generator.multinomial(n, p).tolist(), strict=True))

    assert max(popularity_shift(day(500, shares), day(5000, shares)) for _ in range(10)) < 0.1
    assert popularity_shift(day(500, shares[::-1]), day(5000, shares)) > 0.5


def test_changed_items_are_new_or_differ_in_a_field() -> None:
    before = ItemCatalog(pl.DataFrame({"item_id": ["a", "b"], "title": ["A", None], "categories": [["x"], []]}))
    now = ItemCatalog(pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["A", "B", "C"], "categories": [["x"], [], []]}))
    assert changed_items(now, before).tolist() == [False, True, True]
    assert changed_items(before, before).tolist() == [False, False]


def vectors(new: np.ndarray, *, moved: int = 0, space: str = "s") -> list[str]:
    """Violations for 200 old items and these new ones; the first `moved` old ones have another vector than the night before."""
    old = np.random.default_rng(1).normal(size=(200, 8)).astype(np.float32)
    earlier = SimpleNamespace(values=old.copy(), space_id="s")
    old[:moved] += 1
    fresh = np.arange(200 + len(new)) >= 200
    artifact: Any = SimpleNamespace(manifest=SimpleNamespace(metadata={"space_id": space}))
    found = inspect_vectors("words", np.concatenate([old, new.astype(np.float32)]), earlier, artifact, fresh, Limits())
    return [each.violation for each in found if each.violation]


def test_vectors_that_moved_vanished_or_drifted_are_told() -> None:
    alike = np.random.default_rng(2).normal(size=(50, 8))
    assert vectors(alike) == []
    assert "2 of 200 unchanged items have another vector" in vectors(alike, moved=2)[0]
    assert vectors(alike, moved=2, space="another") == []
    assert "60.0% of 50 new or changed items have no vector" in vectors(alike * (np.arange(50) >= 30)[:, None])[0]
    assert "deviations off" in vectors(np.ones((50, 8)))[0]
    assert vectors(np.ones((5, 8))) == []


def test_the_shift_of_means_is_zero_by_chance_and_its_size_otherwise() -> None:
    generator = np.random.default_rng(3)
    old = generator.normal(size=(4000, 32)).astype(np.float32)
    assert centre_shift(generator.normal(size=(50, 32)).astype(np.float32), old) < 0.08
    assert centre_shift(generator.normal(loc=0.7, size=(500, 32)).astype(np.float32), old) == pytest.approx(0.7, abs=0.05)
