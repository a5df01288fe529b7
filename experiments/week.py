"""A week of nightly runs on MovieLens-100K, with a corrupted day and a worse challenger: `python experiments/week.py`.

Writes the days below .recsys/week, runs `recsys pipeline nightly` for each, and tells the story in experiments/boards/week.md. A week that
was interrupted goes on where it ended.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipelines.night_record import NightBook
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import read_json, write_bytes
from recsys.data.sources.recbole import RecBoleSource

CONFIG = Path("experiments/configs/ml-100k/nightly.yaml")
STORY = Path("experiments/boards/week.md")
NAME = "recsys-ml100k-nightly"
FIRST = date(2026, 11, 16)
WINDOWS, BASE = 7, 0.3
"""Windows of equal event counts, after a base of 30 % of the events, which lands the day before the first."""
CORRUPTED, WORSE = 4, 5
"""Windows, from 1: the file is spoilt; the challenger is trained for one epoch with next to no learning rate."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(".recsys/week"))
    parser.add_argument("--set", action="append", default=[], help="Passed on to every night.")
    parser.add_argument("--note", default="", help="A sentence for below the table.")
    parser.add_argument("--story-only", action="store_true", help="Tell it again from the log of an earlier week.")
    options = parser.parse_args()
    log = options.root / "week.jsonl"
    if not options.story_only:
        cut(options.root / "days")
        done = len(log.read_text().splitlines()) if log.exists() else 0
        kinds = {CORRUPTED: ("corrupted", "usual"), WORSE: ("worse", "usual")}
        wanted = [(window, kind) for window in range(1, WINDOWS + 1) for kind in kinds.get(window, ("usual",))]
        for number, kind in wanted[done:]:
            found = night(options.root, number, kind, options.set)
            with log.open("a") as file:
                file.write(json.dumps(found) + "\n")
    runs = [json.loads(line) for line in log.read_text().splitlines()]
    write_bytes(STORY, story(options.root, runs, options.note).encode())
    print(f"wrote {STORY}")


def cut(folder: Path) -> None:
    """The k-th of a user's n events has the place (k - 1/2) / n; by this place, then by time, the events are spread over the days."""
    source = RecBoleSource()
    events = source.read_interactions().frame.with_columns(pl.col("time").cast(pl.Float64))
    events = events.sort("user_id", "time", maintain_order=True)
    place = (pl.int_range(pl.len()).over("user_id") + 0.5) / pl.len().over("user_id")
    events = events.with_columns(place=place).sort("place", "time", maintain_order=True)
    base = round(BASE * len(events))
    edges = [0, *(base + round((len(events) - base) * k / WINDOWS) for k in range(WINDOWS + 1))]
    number = np.searchsorted(edges[1:], np.arange(len(events)), side="right")
    begin = np.array(edges)[number]
    width = np.diff(edges)[number]
    midnight = int(datetime.combine(FIRST - timedelta(days=1), datetime.min.time(), UTC).timestamp())
    seconds = midnight + number * 86_400 + (np.arange(len(events)) - begin) * 86_400 // width
    events = events.with_columns(number=pl.Series(number), timestamp=pl.Series(seconds))
    items = source.read_items()
    assert items is not None
    first = events.group_by("item_id").agg(number=pl.col("number").min())
    known = items.frame.join(first, on="item_id", how="left").with_columns(pl.col("number").fill_null(0), pl.col("categories").list.join("|"))
    for n in range(WINDOWS + 1):
        for part, frame, columns in (("events", events, ["user_id", "item_id", "timestamp"]), ("items", known, ["item_id", "title", "year", "categories"])):
            path = folder / part / f"{day_of(n)}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.filter(pl.col("number") == n).select(columns).write_csv(path)


def day_of(number: int) -> date:
    """Of window `number` from 1; 0 is the base."""
    return FIRST + timedelta(days=number - 1)


def night(root: Path, number: int, kind: str, more: list[str]) -> dict[str, Any]:
    """One run of the command, as a schedule starts it."""
    day = day_of(number)
    file = root / "days" / "events" / f"{day}.csv"
    good = file.read_bytes()
    changes = [f"data.source.folder={root}/days", f"runtime.root={root}/root", *more]
    if kind == "corrupted":
        file.write_bytes(corrupted(good))
    if kind == "worse":
        changes += ["rank.training.epochs=1", "rank.training.learning_rate=0.00001"]
    command = [sys.executable, "-m", "pipelines.cli", "pipeline", "nightly", str(CONFIG), "--as-of", str(day), "--json"]
    started = datetime.now(UTC)
    try:
        done = subprocess.run([*command, *(f"--set={change}" for change in changes)], capture_output=True, text=True)
    finally:
        file.write_bytes(good)
    seconds = (datetime.now(UTC) - started).total_seconds()
    found: dict[str, Any] = {"window": number, "day": str(day), "kind": kind, "exit": done.returncode, "seconds": round(seconds, 1)}
    print(found, done.stderr.strip()[-300:] if done.returncode else "", flush=True)
    if done.returncode:
        return {**found, "outcome": "stopped", "reason": done.stderr.strip().splitlines()[-1]}
    result = json.loads(done.stdout)
    verdict = read_json(Path(result["artifacts"]["publish"]) / "verdict.json")
    contest = Artifact.open(Path(result["artifacts"]["evaluate:contest"])).manifest.metadata
    return {**found, **{k: result[k] for k in ("outcome", "reason", "champion_before", "model")}, "checks": verdict["checks"], "contest": contest}


def corrupted(content: bytes) -> bytes:
    """A join gone wrong: every event has the next item of the sorted ids, and every tenth has lost its time."""
    head, *rows = content.decode().splitlines()
    cells = [row.split(",") for row in rows]
    ids = sorted({item for _, item, _ in cells})
    following = dict(zip(ids, [*ids[1:], ids[0]], strict=True))
    spoilt = [f"{user},{following[item]},{time if n % 10 else ''}" for n, (user, item, time) in enumerate(cells)]
    return "\n".join([head, *spoilt, ""]).encode()


def story(root: Path, runs: list[dict[str, Any]], note: str) -> str:
    lines = [
        "# A week of nightly runs",
        "",
        "MovieLens-100K, `experiments/configs/ml-100k/nightly.yaml`; made by `python experiments/week.py`.",
        "",
        "People of this data set rate in one sitting: sevenths of its own clock hold 46 to 108 users who were there before. Events are spread",
        "over the days by the share of their user's history that lies before them: 30 % are the past, then come seven windows of 10,000 events,",
        "each with every user. A night trains on all days before the newest one and predicts up to 20 events of each user in that one, the",
        "whole catalogue ranked; a user counts once, with the mean of their events. Champion and challenger see the same cases.",
        "",
        "| window | run | users | cases | champion | NDCG@10 | challenger | relative | lower bound | decision | exit | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        head = f"| {run['window']} ({run['day'][5:]}) | {run['kind']} "
        if "checks" not in run:
            lines.append(f"{head}| | | | | | | | **stopped by the checks** | {run['exit']} | {run['seconds']:.0f} |")
            continue
        numbers, contest = run["checks"][0]["numbers"], run["contest"]
        champion = f"{numbers['champion']:.4f}" if numbers else "–"
        bounds = f"{numbers['relative']:+.1%} | {numbers['low']:+.1%}" if numbers else "– | –"
        mine = f"{contest['challenger_ndcg_at_10']:.4f}"
        lines.append(
            f"{head}| {contest['users']} | {contest['cases']:,} | version {run['champion_before'] or 'none'} | {champion} | {mine} | {bounds} "
            f"| **{run['outcome']}** | {run['exit']} | {run['seconds']:.0f} |"
        )
    lines += ["", note] if note else []
    lines += ["", "## Why", ""]
    for run in runs:
        lines.append(f"- window {run['window']}, {run['kind']}: {run['reason']}")
    judged = [run["checks"][0]["numbers"] for run in runs if run.get("checks") and run["checks"][0]["numbers"] and run["kind"] == "usual"]
    if judged:
        equal, least = (np.array([numbers[name] for numbers in judged]) for name in ("power_equal", "detectable"))
        lines += [
            "",
            "## The power of the test",
            "",
            f"With {judged[0]['users']:.0f} users a night and a tolerance of 2 %, a challenger exactly as good as the champion is promoted with a",
            f"probability of {equal.min():.0%} to {equal.max():.0%}, and one that is truly better by {least.min():+.1%} to {least.max():+.1%} with one",
            "of 80 %. An equal challenger is thus held on most nights; one as bad as the tolerance is promoted on one night in twenty.",
        ]
        cold = [run["checks"][1] for run in runs if run.get("checks") and len(run["checks"]) > 4 and run["checks"][1]["numbers"]]
        if cold:
            users = [check["numbers"]["users"] for check in cold]
            lines.append(
                f"Cold targets (no training event) had {min(users):.0f} to {max(users):.0f} users a night. That tells nothing of a relative difference: by "
                "`few_cold: pass` they do not decide here; the default would hold every such night."
            )
    if missing := [str(number) for number in range(1, WINDOWS + 1) if not any(run["window"] == number and "checks" in run for run in runs)]:
        lines += ["", f"Not run to the end yet: windows {', '.join(missing)}; `python experiments/week.py` goes on with them."]
    nights = NightBook((root / "root").absolute(), NAME).nights()
    lines += ["", f"The book of nights holds {len(nights)} days; the last state of each: {', '.join(f'{n.day[5:]} {n.outcome}' for n in nights)}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
