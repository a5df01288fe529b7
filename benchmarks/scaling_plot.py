"""The picture of the sweep: seconds and peak memory over the interactions, both axes logarithmic. Readable in grey."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

LOOK: dict[str, dict[str, Any]] = {
    "ingest": {"color": "#000000", "marker": "o", "linestyle": "-"},
    "split": {"color": "#6b6b6b", "marker": "s", "linestyle": "--"},
    "evaluation": {"color": "#0b5fa5", "marker": "^", "linestyle": "-."},
    "training": {"color": "#c26a00", "marker": "D", "linestyle": ":"},
}
"""Told apart by marker and line, not by colour alone."""
TITLE = "Cost by size: ingest and split of all rows, evaluation of 2,000 users, 20 training steps"


def draw(points: Sequence[dict[str, Any]], path: Path, *, stages: Sequence[str] = tuple(LOOK), title: str = TITLE) -> None:
    """points: dicts with interactions, items, stage, what, seconds, peak_mb (None: unknown) and capped.

    stages: at most as many as there are looks.
    """
    looks = dict(zip(stages, LOOK.values(), strict=False))
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, value, label in ((left, "seconds", "seconds"), (right, "peak_mb", "peak memory of the process, MB")):
        for number, (stage, look) in enumerate(looks.items()):
            # Stages that were capped together stand on one another: their words go one below the other.
            _line(axes, [p for p in points if p["stage"] == stage and p[value] is not None], value, stage, look, below=8 - 12 * number)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("interactions (items and users: a tenth each)")
        axes.set_ylabel(label)
        axes.grid(True, which="major", color="#d0d0d0", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, handlelength=3.5)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)


def _line(axes: Axes, points: Sequence[dict[str, Any]], value: str, stage: str, look: dict[str, Any], *, below: int) -> None:
    points = sorted(points, key=lambda p: p["interactions"])
    axes.plot([p["interactions"] for p in points], [p[value] for p in points], label=stage, markersize=6, linewidth=1.6, **look)
    for p in points:
        if p["capped"]:
            axes.plot(p["interactions"], p[value], marker=look["marker"], markersize=10, markerfacecolor="white", markeredgecolor=look["color"])
            axes.annotate(f"{stage}: capped", (p["interactions"], p[value]), textcoords="offset points", xytext=(-10, below), ha="right", fontsize=8)
