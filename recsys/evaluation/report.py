"""`Report`: plain values of one run's evaluation, written as HTML (one file, no requests), Markdown and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recsys.artifacts.atomic import write_bytes, write_json


@dataclass(frozen=True)
class Measure:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ModelRow:
    """cold_recall: Recall@10 of cold items among all items, None where it was not measured. highlight: the run's own model."""

    name: str
    recall: Measure
    ndcg: Measure
    cold_recall: Measure | None
    seconds: float
    highlight: bool = False


@dataclass(frozen=True)
class DataFacts:
    """quarantine: reason -> rows."""

    name: str
    users: int
    items: int
    interactions: int
    protocol: str
    split_hash: str
    quarantine: Mapping[str, int] = field(default_factory=dict)
    test_cases: int = 0
    cold_cases: int = 0


@dataclass(frozen=True)
class Curve:
    """One model's training: equally long rows, one entry an epoch."""

    model: str
    epochs: tuple[int, ...]
    loss: tuple[float, ...]
    validation_ndcg: tuple[float, ...]


@dataclass(frozen=True)
class PopularityRecall:
    """Recall@10 by training interactions of the target. recall: model -> one value a bucket (NaN: no cases)."""

    buckets: tuple[str, ...]
    cases: tuple[int, ...]
    recall: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class ItemMap:
    """xy: n positions (see `map_2d`); labels: n genres."""

    title: str
    xy: tuple[tuple[float, float], ...]
    labels: tuple[str, ...]

    @classmethod
    def of(cls, title: str, xy: Any, labels: list[str]) -> ItemMap:
        """xy: float (n, 2)."""
        if len(xy) != len(labels):
            raise ValueError(f"{len(xy)} positions but {len(labels)} labels")
        return cls(title, tuple((float(x), float(y)) for x, y in xy), tuple(labels))


@dataclass(frozen=True)
class SignificanceRow:
    """`model` minus `baseline`; see `significance.Comparison`."""

    model: str
    baseline: str
    metric: str
    difference: Measure
    p_bootstrap: float
    p_t: float
    p_wilcoxon: float
    holm: float


@dataclass(frozen=True)
class StageRow:
    """One stage of the run: its key and a word on what it made."""

    stage: str
    key: str
    note: str = ""


@dataclass(frozen=True)
class Recommended:
    """shares: signal -> its part of the score. hit: it is the user's test item."""

    title: str
    score: float
    shares: Mapping[str, float] = field(default_factory=dict)
    hit: bool = False


@dataclass(frozen=True)
class Sample:
    """history: titles, oldest first."""

    user_id: str
    history: tuple[str, ...]
    recommendations: tuple[Recommended, ...]


@dataclass(frozen=True)
class Report:
    """All of it is optional but the title, the data and the models: what is empty leaves no section.

    spaces: signal -> embedding_space_id. versions: package or model -> version. created: ISO time.
    """

    title: str
    created: str
    data: DataFacts
    models: tuple[ModelRow, ...]
    summary: str = ""
    curves: tuple[Curve, ...] = ()
    popularity: PopularityRecall | None = None
    maps: tuple[ItemMap, ...] = ()
    significance: tuple[SignificanceRow, ...] = ()
    stages: tuple[StageRow, ...] = ()
    spaces: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()


def write_report(path: Path, report: Report) -> None:
    """One HTML file that needs nothing else: inline style and SVG, no script, no request. Equal reports give equal bytes."""
    from recsys.evaluation.report_html import render

    write_bytes(path, render(report).encode())


def write_report_json(path: Path, report: Report) -> None:
    """All values; NaN (nothing to average) becomes null."""
    write_json(path, plain(asdict(report)))


def write_report_markdown(path: Path, report: Report) -> None:
    write_bytes(path, markdown(report).encode())


def markdown(report: Report) -> str:
    """The tables, for a README or a pull request."""
    data = report.data
    lines = [
        f"# {md_text(report.title)}",
        "",
        md_text(report.summary),
        "",
        f"{md_text(data.name)}: {data.users:,} users, {data.items:,} items, {data.interactions:,} interactions; ",
    ]
    lines[-1] += f"{md_text(data.protocol)}, split {md_text(data.split_hash[:12])}."
    lines += ["", "| model | Recall@10 | NDCG@10 | cold Recall@10 | seconds |", "|---|---|---|---|---|"]
    for row in report.models:
        name = f"**{md_text(row.name)}**" if row.highlight else md_text(row.name)
        lines.append(f"| {name} | {_md_measure(row.recall)} | {_md_measure(row.ndcg)} | {_md_measure(row.cold_recall)} | {row.seconds:.1f} |")
    if data.quarantine:
        lines += ["", "| quarantined because | rows |", "|---|---|", *(f"| {md_text(reason)} | {count:,} |" for reason, count in data.quarantine.items())]
    if report.significance:
        lines += ["", "| difference | metric | mean | p (bootstrap) | p (Holm) |", "|---|---|---|---|---|"]
        lines += [
            f"| {md_text(s.model)} − {md_text(s.baseline)} | {md_text(s.metric)} | {_md_measure(s.difference)} | {number(s.p_bootstrap)} | {number(s.holm)} |"
            for s in report.significance
        ]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def number(value: float | None, digits: int = 4) -> str:
    """Fixed digits; a dash for what is undefined."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _md_measure(measure: Measure | None) -> str:
    return "–" if measure is None or not math.isfinite(measure.mean) else f"{measure.mean:.4f} [{measure.low:.4f}, {measure.high:.4f}]"


def md_text(text: str) -> str:
    """Item titles and reasons are untrusted: no markup, no new table cell, no new line."""
    flat = " ".join(text.split())
    for character in "\\`*_[]|#":
        flat = flat.replace(character, "\\" + character)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def plain(value: Any) -> Any:
    """Values that JSON can hold: what is undefined (NaN, infinity) is null."""
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
