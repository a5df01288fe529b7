"""The report's plots: inline SVG whose colours are CSS variables, so that one picture serves light and dark pages."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from recsys.evaluation.report import Curve, ItemMap, Measure, ModelRow, PopularityRecall

# matplotlib writes colours as hex; each name below stands for one that the page's style decides.
INK, MUTED, GRID, ACCENT, OTHER = "#010101", "#020202", "#030303", "#040404", "#050505"
SERIES = tuple(f"#0602{i:02x}" for i in range(8))
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", ACCENT: "--accent", OTHER: "--other", **{c: f"--s{i}" for i, c in enumerate(SERIES)}}
MARKERS = "osD^vPXh"
SETTINGS: Any = {
    "svg.fonttype": "none",  # real text: selectable, sharp, set in the page's own type
    "svg.hashsalt": "recsys",
    "text.parse_math": False,  # an item title may hold a dollar sign
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.solid_capstyle": "round",
}


def training_curves(curves: Sequence[Curve]) -> str:
    """Loss and validation NDCG@10 per epoch, a line a model."""
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(5.6, 4.7)
        for place, (title, values) in enumerate((("Training loss", "loss"), ("Validation NDCG@10", "validation_ndcg"))):
            axes = figure.add_subplot(2, 1, place + 1)
            for i, curve in enumerate(curves):
                axes.plot(curve.epochs, getattr(curve, values), color=SERIES[i % 8], linewidth=1.8, label=curve.model)
                best = int(np.nanargmax(curve.validation_ndcg)) if np.isfinite(curve.validation_ndcg).any() else None
                if values == "validation_ndcg" and best is not None:
                    axes.plot(curve.epochs[best], curve.validation_ndcg[best], MARKERS[i % 8], color=SERIES[i % 8], markersize=6)
            axes.set_title(title)
            axes.grid(visible=False, axis="x")
            axes.margins(x=0.02)
            if place == 0:
                axes.legend(loc="upper right")
            else:
                axes.set_xlabel("epoch")
                axes.set_ylim(bottom=0)
        return svg_of(figure, "curves")


def metric_intervals(models: Sequence[ModelRow]) -> str:
    """Bars with 95 % intervals: Recall@10, NDCG@10 and, where measured, cold Recall@10."""
    panels: list[tuple[str, list[Measure | None]]] = [("Recall@10", [m.recall for m in models]), ("NDCG@10", [m.ndcg for m in models])]
    if any(m.cold_recall for m in models):
        panels.append(("Recall@10 of cold items", [m.cold_recall for m in models]))
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(5.6, len(panels) * (0.5 + 0.245 * len(models)))
        rows = np.arange(len(models))[::-1]
        for place, (title, measures) in enumerate(panels):
            axes = figure.add_subplot(len(panels), 1, place + 1)
            widest = max((m.high for m in measures if m and math.isfinite(m.high)), default=0.0) or 1.0
            for row, model, measure in zip(rows, models, measures, strict=True):
                if measure is None or not math.isfinite(measure.mean):
                    axes.text(0, row, " not measured", va="center", color=MUTED, fontsize=8)
                    continue
                axes.barh(row, measure.mean, height=0.62, color=ACCENT if model.highlight else OTHER)
                axes.plot([measure.low, measure.high], [row, row], color=INK, linewidth=1.3)
                axes.text(max(measure.high, measure.mean) + 0.012 * widest, row, f"{measure.mean:.3f}", va="center", fontsize=8, color=INK)
            axes.set_yticks(rows, [m.name for m in models])
            for label, model in zip(axes.get_yticklabels(), models, strict=True):
                label.set_color(INK if model.highlight else MUTED)
                label.set_fontweight("bold" if model.highlight else "normal")
            axes.set_title(title)
            axes.set_xlim(0, widest * 1.1)
            axes.grid(visible=False, axis="y")
            axes.spines["bottom"].set_visible(False)
        return svg_of(figure, "metrics")


def popularity_recall(popularity: PopularityRecall) -> str:
    """Recall@10 against the popularity bucket of the target, a line a model."""
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(5.6, 3.9)
        axes = figure.add_subplot()
        places = np.arange(len(popularity.buckets))
        for i, (model, recall) in enumerate(popularity.recall.items()):
            axes.plot(places, recall, color=SERIES[i % 8], marker=MARKERS[i % 8], markersize=4.5, linewidth=1.5, label=model, linestyle="-" if i < 8 else "--")
        axes.set_xticks(places, [f"{bucket}\nn = {cases:,}" for bucket, cases in zip(popularity.buckets, popularity.cases, strict=True)])
        axes.set_xlabel("training interactions of the target")
        axes.set_title("Recall@10")
        axes.grid(visible=False, axis="x")
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left", ncols=1)
        return svg_of(figure, "popularity")


def item_map(picture: ItemMap, *, named: int = 6) -> str:
    """Items at their two coordinates; the `named` most frequent genres in colour, the rest in grey."""
    frequent = [label for label, _ in sorted(Counter(picture.labels).items(), key=lambda pair: (-pair[1], pair[0]))]
    frequent, rest = frequent[:named], frequent[named:]
    xy, labels = np.array(picture.xy, dtype=np.float64).reshape(-1, 2), np.array(picture.labels, dtype=object)
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(4.2, 4.6)  # two stand side by side
        axes = figure.add_subplot()
        grey = np.isin(labels, rest)
        if grey.any():
            axes.plot(*xy[grey].T, ".", color=OTHER, markersize=3.2, alpha=0.7, markeredgewidth=0, label=f"other ({len(rest)} more)")
        for i, label in enumerate(frequent):
            axes.plot(*xy[labels == label].T, MARKERS[i % 8], color=SERIES[i % 8], markersize=3.4, alpha=0.85, markeredgewidth=0, label=label)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_title(picture.title)
        figure.legend(loc="outside lower center", ncols=3, markerscale=1.8, handletextpad=0.1, columnspacing=1.0)
        return svg_of(figure, f"map-{picture.title}")


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def svg_of(figure: Figure, name: str) -> str:
    """The <svg> element alone, without metadata, colours by variable, ids that do not meet those of another plot."""
    buffer = io.StringIO()
    empty: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=empty)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "plot"
    text = re.sub(r'\bid="', f'id="{slug}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{slug}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"(font: (?:\w+ )*[\d.]+px) [^;\"]*", r"\1 var(--sans)", text)
    return text
