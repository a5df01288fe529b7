"""The plots of a board, as inline SVG (see `report_plots`)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from recsys.evaluation.board import ORDER, BoardRow, Mark
from recsys.evaluation.report_plots import ACCENT, INK, MARKERS, MUTED, OTHER, SERIES, SETTINGS, new_figure, svg_of


def accuracy_bars(rows: Sequence[BoardRow], name: str) -> str:
    """NDCG@10 with intervals; the leading models in colour."""
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(5.6, 0.7 + 0.27 * len(rows))
        axes = figure.add_subplot()
        places = np.arange(len(rows))[::-1]
        widest = max(row.metrics[ORDER].high for row in rows) or 1.0
        for place, row in zip(places.tolist(), rows, strict=True):
            value = row.metrics[ORDER]
            axes.barh(place, value.mean, height=0.62, color=OTHER if value.mark is Mark.NONE else ACCENT)
            axes.plot([value.low, value.high], [place, place], color=INK, linewidth=1.3)
            axes.text(max(value.high, value.mean) + 0.012 * widest, place, f"{value.mean:.4f}", va="center", fontsize=8, color=INK)
        axes.set_yticks(places, [row.label for row in rows])
        axes.set_title("NDCG@10")
        axes.set_xlim(0, widest * 1.14)
        axes.grid(visible=False, axis="y")
        axes.spines["bottom"].set_visible(False)
        return svg_of(figure, f"bars-{name}")


def validation_curves(rows: Sequence[BoardRow], name: str) -> str:
    """Validation NDCG@10 by epoch: a colour a model, a line a seed."""
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(5.6, 3.4)
        axes = figure.add_subplot()
        for i, row in enumerate(rows):
            for n, (epochs, values) in enumerate(row.curves.values()):
                style = "-" if i < 8 else "--"
                axes.plot(epochs, values, style, color=SERIES[i % 8], linewidth=1.4, alpha=0.8, label=row.label if n == 0 else None)
                best = int(np.argmax(values))
                axes.plot(epochs[best], values[best], MARKERS[i % 8], color=SERIES[i % 8], markersize=4.5)
        axes.set_title("Validation NDCG@10")
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
        axes.grid(visible=False, axis="x")
        axes.legend(loc="lower right")
        return svg_of(figure, f"curves-{name}")


def trade_offs(rows: Sequence[BoardRow], name: str) -> str:
    """NDCG@10 against milliseconds a user (logarithmic) and against coverage; a model the same marker in both."""
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(5.6, 3.6)
        for place, (title, key) in enumerate((("ms per user", "ms per user"), ("coverage@10", "coverage@10"))):
            axes = figure.add_subplot(1, 2, place + 1)
            for i, row in enumerate(rows):
                x = row.figures[key].mean
                if np.isfinite(x) and (place or x > 0):
                    axes.plot(x, row.metrics[ORDER].mean, MARKERS[i % 8], color=SERIES[i % 8], markersize=6.5, linestyle="none", label=row.label)
            if place == 0:
                axes.set_xscale("log")
                # Ticks in plain digits: the settings leave formulas unparsed.
                axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
                axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                axes.xaxis.set_minor_formatter(NullFormatter())
                axes.set_ylabel("NDCG@10", color=MUTED)
            axes.set_xlabel(title)
            axes.margins(0.12)
        handles: dict[str, Artist] = {}
        for axes in figure.axes:
            handles.update({str(label): handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)})
        if handles:
            figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3)
        return svg_of(figure, f"trade-{name}")
