"""A small made-up shop whose events land day by day: what the tests of nightly runs read."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

FIRST = date(2026, 11, 16)
KINDS = ("red wine", "garden tools", "running shoes", "jazz records")
N_ITEMS, N_USERS = 40, 60


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def write_day(folder: Path, number: int, *, users: int = N_USERS, events: int = 3, seed: int = 0) -> None:
    """A file of events, `events` a user; users keep to one kind of items. Day 0 brings items 0-35, each later day one more."""
    rng = np.random.default_rng([seed, number])
    midnight = int(datetime.combine(day(number), datetime.min.time(), UTC).timestamp())
    known = min(36 + number, N_ITEMS)
    rows = ["user,item,ts"]
    for user in range(users):
        for step in range(events):
            kind = user % 4 if rng.random() < 0.9 else int(rng.integers(0, 4))
            choices = [item for item in range(known) if item % 4 == kind]
            rows.append(f"u{user},i{rng.choice(choices)},{midnight + 600 * step + user}")
    if number and known > 36:
        rows.append(f"u{number},i{known - 1},{midnight + 80_000}")
    _write(folder / "events" / f"{day(number)}.csv", rows)
    new = range(known) if not number else range(known - 1, known)
    _write(folder / "items" / f"{day(number)}.csv", ["id,name,tags", *(f"i{i},{KINDS[i % 4]} number {i},{KINDS[i % 4].split()[1]}" for i in new)])


def shop(folder: Path, days: int = 4) -> Path:
    for number in range(days):
        write_day(folder, number)
    return folder


def config(folder: Path, **changes: Any) -> dict[str, Any]:
    """Plain values of a `NightlyConfig` that takes seconds."""
    source = {
        "kind": "daily",
        "folder": str(folder),
        "events": {"user_id": "user", "item_id": "item", "time": "ts"},
        "items": {"item_id": "id", "title": "name", "categories": "tags"},
    }
    values: dict[str, Any] = {
        "name": "tiny-shop",
        "data": {"source": source},
        "embed": [{"name": "words", "model": "hashed", "template": "{title}|. {categories}"}],
        "rank": {"encoder": {"dim": 16, "max_length": 20}, "training": {"epochs": 2, "patience": 2}, "gate": False},
        "publish": {"parity_users": 5, "parity_items": 10, "latency_requests": 10, "gate": {"latency_ms": 1000.0, "few_cold": "pass"}},
        "checks": {"popularity": 1.0},
        "attempts": {"retries": 0},
        "runtime": {"root": str(folder / "root"), "executor": "local"},
    }
    return {**values, **changes}


def _write(path: Path, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
