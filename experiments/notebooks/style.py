"""One look for all plots of the notebooks: colours that also differ in lightness, so that they can be told apart in grey.

Importing it makes the repository's root the current folder: paths in the notebooks begin there.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

ROOT = Path(__file__).resolve().parents[2]
COLOURS = ("#0b3c5d", "#b8324b", "#d08c2e", "#7fbcc3", "#c6c2d9", "#f0e08a")
"""From dark to light, at least seven steps of lightness (L*) apart: in grey they keep their order. Blue, red and orange alternate, which the common
forms of colour blindness leave apart; hatches and markers go with them."""
HATCHES = ("", "///", "...", "xx", "\\\\\\", "++")
MARKERS = ("o", "s", "^", "D", "v", "P")

os.chdir(ROOT)
for forced in ("FORCE_COLOR", "CLICOLOR_FORCE"):  # with them, commands in a cell of bash draw their progress as on a terminal
    os.environ.pop(forced, None)
os.environ["COLUMNS"] = "140"
os.environ.setdefault("TQDM_DISABLE", "1")  # bars of loading would stand in the executed copies, line after line
warnings.filterwarnings("ignore", message="IProgress not found")
pl.Config(fmt_str_lengths=160, tbl_rows=30, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, tbl_width_chars=200, float_precision=4)
plt.rcParams.update(
    {
        "figure.figsize": (8.0, 4.2),
        "figure.dpi": 110,
        "figure.constrained_layout.use": True,
        "figure.facecolor": "white",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.prop_cycle": plt.cycler(color=COLOURS),
        "grid.color": "#e6e6e6",
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "font.size": 11,
        "hatch.linewidth": 0.6,
    }
)

if (shell := get_ipython()) is not None:
    # A cell that ends in a plot shows the plot, not the name of its last part beside it.
    # (Not all artists: a figure is one, and then nothing would be shown.)
    for kind in (Axes, Legend, Text):
        shell.display_formatter.ipython_display_formatter.for_type(kind, lambda part: None)


def bars(values: Mapping[str, float], *, label: str, title: str, intervals: Mapping[str, tuple[float, float]] | None = None, lead: str | None = None) -> Axes:
    """Horizontal bars, in the order given; intervals: name -> (low, high). lead: the bar to look at."""
    _, ax = plt.subplots(figsize=(8.0, 0.42 * len(values) + 1.2))
    names = list(values)
    colours = [COLOURS[1] if name == lead else COLOURS[0] for name in names]
    drawn = ax.barh(names, list(values.values()), color=colours, height=0.66)
    for bar, name in zip(drawn, names, strict=True):
        if name == lead:
            bar.set_hatch(HATCHES[1])
            bar.set_edgecolor("white")
        low, high = (intervals or {}).get(name, (values[name], values[name]))
        if high > low:
            middle = [bar.get_y() + bar.get_height() / 2] * 2
            ax.plot([low, high], middle, color="black", linewidth=1.4, solid_capstyle="butt", path_effects=[withStroke(linewidth=3.4, foreground="white")])
        ax.annotate(f" {values[name]:.3f}", (high, bar.get_y() + bar.get_height() / 2), va="center", fontsize=10)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.12)
    ax.set_xlabel(label)
    ax.set_title(title)
    return ax


def stacked(names: Sequence[str], parts: Mapping[str, Sequence[float]], *, label: str, title: str) -> Axes:
    """Horizontal bars of parts that add up; negative parts go to the left."""
    fig, ax = plt.subplots(figsize=(8.0, 0.42 * len(names) + 1.4))
    right, left = [0.0] * len(names), [0.0] * len(names)
    for number, (part, values) in enumerate(parts.items()):
        begins = [r if v >= 0 else lo for r, lo, v in zip(right, left, values, strict=True)]
        ax.barh(names, values, left=begins, label=part, color=COLOURS[number], hatch=HATCHES[number], edgecolor="white", height=0.66)
        right = [r + max(v, 0) for r, v in zip(right, values, strict=True)]
        left = [lo + min(v, 0) for lo, v in zip(left, values, strict=True)]
    ax.axvline(0, color="black", linewidth=0.8)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(label)
    ax.set_title(title)
    fig.legend(ncols=min(len(parts), 4), loc="outside lower center")
    return ax


def points(xy: Any, groups: Sequence[str], order: Sequence[str], *, title: str, labels: Mapping[int, str] | None = None) -> Axes:
    """A map: xy (n, 2), a group a point; those of no group in `order` in light grey. labels: row -> what is written
    beside it, unless it would stand on an earlier one."""
    _, ax = plt.subplots(figsize=(8.0, 6.2))
    rest = [row for row, group in enumerate(groups) if group not in order]
    ax.scatter(xy[rest, 0], xy[rest, 1], s=6, color="#d5d5d5", linewidths=0, label="others")
    for number, group in enumerate(order):
        rows = [row for row, g in enumerate(groups) if g == group]
        ax.scatter(xy[rows, 0], xy[rows, 1], s=20, color=COLOURS[number], marker=MARKERS[number], linewidths=0.4, edgecolors="#333333", label=group)
    width, height = xy.max(axis=0) - xy.min(axis=0)
    written: list[Any] = []
    for row, text in (labels or {}).items():
        if any(abs(xy[row, 0] - x) < 0.24 * width and abs(xy[row, 1] - y) < 0.035 * height for x, y in written):
            continue
        written.append(xy[row])
        ax.plot(*xy[row], ".", color="black", markersize=5)
        ax.annotate(
            text, xy[row], fontsize=9, xytext=(4, 4), textcoords="offset points",
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
        )  # fmt: skip
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set_title(title)
    ax.legend(ncols=4, loc="upper left", bbox_to_anchor=(0, -0.01), markerscale=1.6)
    return ax


def differences(
    rows: Mapping[str, tuple[float, float, float]], *, label: str, title: str, clear: Collection[str], at: float = 0.0, percent: bool = False
) -> Axes:
    """Intervals beside a line: name -> (low, middle, high), in the order given. clear: those told from the line; the others are hollow and dotted."""
    _, ax = plt.subplots(figsize=(8.0, 0.46 * len(rows) + 1.4))
    form = "{:+.1%}" if percent else "{:+.4f}"
    for row, (name, (low, middle, high)) in enumerate(rows.items()):
        told = name in clear
        colour = COLOURS[0] if told else "#6b6b6b"
        ax.plot([low, high], [row, row], color=colour, linewidth=2.4, linestyle="-" if told else ":", solid_capstyle="butt")
        ax.plot(middle, row, MARKERS[0], color=colour, markersize=8, markerfacecolor=colour if told else "white", markeredgewidth=1.6)
        ax.annotate(form.format(middle), (middle, row), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=9)
    ax.axvline(at, color="black", linewidth=0.9)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.4, -0.75)
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.1)
    if percent:
        ax.xaxis.set_major_formatter("{x:+.0%}")
    ax.set_xlabel(label)
    ax.set_title(title)
    return ax
