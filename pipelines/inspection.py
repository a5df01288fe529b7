"""Stages `inspect` and `inspect:vectors`: volume, nulls, quarantine, popularity and embeddings of the newest day against earlier ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipelines import embed, ingest
from pipelines.inspection_config import InspectConfig, Limits, VectorConfig
from pipelines.stage import Inputs, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import read_json, write_json
from recsys.data.catalog import ItemCatalog
from recsys.data.sources.raw import RawTable
from recsys.data.validation import clean
from recsys.errors import DataError
from recsys.rng import numpy_generator
from recsys.types import BoolArray, FloatArray, IntArray

VERSION = 1
REPORT = "inspection.json"
GROUPS = 10


@dataclass(frozen=True)
class Finding:
    """One figure and its limits. violation: what is wrong, "" where nothing is."""

    name: str
    value: float
    limit: str
    violation: str = ""


def run(config: InspectConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    items = config.source.read_items()
    earlier = [day for day in config.source.days() if day < config.day][-config.limits.reference_days :]
    newest, *reference = (_Day.of(config.source.read_day(day), items, config) for day in (config.day, *earlier))
    return _judge(inspect_day(newest, reference, config.limits), config.limits, folder, surroundings, {"day": str(config.day), "reference": len(reference)})


def run_vectors(config: VectorConfig, inputs: Inputs, folder: Path, surroundings: Surroundings, *, earlier: Mapping[str, Artifact]) -> Mapping[str, Any]:
    """earlier: "data" and "table:..." of the night before; empty: there is none to compare with."""
    findings: list[Finding] = []
    for role, artifact in inputs.items():
        if role.startswith("table:") and role in earlier:
            name = artifact.manifest.metadata["name"]
            fresh = changed_items(ingest.load(inputs["data"]).catalog, ingest.load(earlier["data"]).catalog)
            findings += inspect_vectors(name, embed.load(artifact).values, embed.load(earlier[role]), artifact, fresh, config.limits)
    return _judge(findings, config.limits, folder, surroundings, {"compared": bool(earlier)})


def violations(artifact: Artifact) -> tuple[str, ...]:
    return tuple(found["violation"] for found in read_json(artifact.file(REPORT)) if found["violation"])


@dataclass(frozen=True)
class _Day:
    """rows: as they came.  clean: events left.  refused: reason -> rows.  nulls: column -> share of missing values.  counts: item_id -> events."""

    rows: int
    clean: int
    refused: Mapping[str, int]
    nulls: Mapping[str, float]
    counts: Mapping[str, int]

    @classmethod
    def of(cls, raw: RawTable, items: RawTable | None, config: InspectConfig) -> _Day:
        rows = len(raw.frame) + len(raw.unreadable)
        columns = [name for name in raw.frame.columns if not name.startswith("__")]
        missing = {name: _missing(raw.frame[name]) for name in columns}
        try:
            data = clean(raw, items, config.validation)
        except DataError:  # not one event is left: that is a figure too
            return cls(rows, 0, {"no event is left": rows}, missing, {})
        refused = data.quarantine.filter(pl.col("file") == raw.file)
        # What a filter of ratings leaves out is as it should be.
        bad = refused.filter(~pl.col("reason").str.starts_with("rating below"))
        reasons = {str(reason): int(count) for reason, count in bad.group_by("reason").len().sort("reason").iter_rows()}
        counted = data.interactions.to_frame().group_by("item_id").len()
        return cls(rows, len(data.interactions), reasons, missing, dict(counted.iter_rows()))


def inspect_day(newest: _Day, reference: list[_Day], limits: Limits) -> list[Finding]:
    refused = sum(newest.refused.values())
    share = refused / max(newest.rows, 1)
    told = ", ".join(f"{reason} ({count})" for reason, count in newest.refused.items())
    said = f"{share:.1%} of the day's rows: {told}"
    findings = [_finding("rows in quarantine", share, f"at most {limits.quarantined:.0%}", share > limits.quarantined, said)]
    if not reference:
        return [*findings, _finding("events of the day", newest.clean, "at least 1", not newest.clean, "there is none")]
    usual = float(np.median([day.clean for day in reference]))
    volume = newest.clean / max(usual, 1)
    said = f"{newest.clean} clean events, usual are {usual:.0f} ({volume:.2f} times)"
    findings.append(_finding("volume", volume, f"{limits.fewest:g} to {limits.most:g} times", not limits.fewest <= volume <= limits.most, said))
    for name, value in newest.nulls.items():
        before = float(np.mean([day.nulls.get(name, 1.0) for day in reference]))
        said = f"{value:.1%} of {name} are missing, {before:.1%} were before"
        findings.append(_finding(f"nulls of {name}", value - before, f"at most {limits.nulls:+.0%}", value - before > limits.nulls, said))
    before_counts: dict[str, int] = {}
    for day in reference:
        for item, count in day.counts.items():
            before_counts[item] = before_counts.get(item, 0) + count
    if newest.clean and before_counts:
        shift = popularity_shift(newest.counts, before_counts)
        said = f"a stability index of {shift:.2f} beyond chance against the {len(reference)} days before"
        findings.append(_finding("popularity", shift, f"at most {limits.popularity:g}", shift > limits.popularity, said))
    return findings


def popularity_shift(newest: Mapping[str, int], reference: Mapping[str, int], *, draws: int = 40) -> float:
    """`stability_index`, less what 95 % of `draws` days that are drawn from the reference itself stay below: few events shift by chance
    alone. Not below 0."""
    items = sorted(newest.keys() | reference.keys())
    now, before = (np.array([counts.get(item, 0) for item in items]) for counts in (newest, reference))
    generator, shares = numpy_generator(0, "inspection"), before / before.sum()
    chance = [stability_index(generator.multinomial(now.sum(), shares), generator.multinomial(before.sum(), shares)) for _ in range(draws)]
    return max(0.0, stability_index(now, before) - float(np.quantile(chance, 0.95)))


def stability_index(now: IntArray, before: IntArray) -> float:
    """Population stability index: sum of (p - q) ln(p / q) over ten groups of items of about equal q, most popular first, and one of the
    items that only `now` has. now, before: int64 (n,), events of each item. A share counts as half an event at least."""
    order = np.argsort(-before, kind="stable")
    middle = np.empty(len(before))
    middle[order] = np.cumsum(before[order]) - before[order] / 2
    groups = np.where(before > 0, np.minimum(middle * GROUPS // before.sum(), GROUPS - 1), GROUPS).astype(np.int64)
    counts = [np.bincount(groups, weights=each, minlength=GROUPS + 1) for each in (now, before)]
    # A group that neither has (no new items, or fewer items than groups) says nothing.
    used = (counts[0] > 0) | (counts[1] > 0)
    p, q = (np.maximum(each, 0.5)[used] / each.sum() for each in counts)
    return float(((p - q) * np.log(p / q)).sum())


def changed_items(now: ItemCatalog, before: ItemCatalog) -> BoolArray:
    """bool (n,): items of `now` that `before` lacks, or has other fields of."""
    earlier = set(_rows(before.without_pictures().table))
    return np.array([row not in earlier for row in _rows(now.without_pictures().table)], dtype=np.bool_)


def inspect_vectors(name: str, values: FloatArray, earlier: Any, artifact: Artifact, fresh: BoolArray, limits: Limits) -> list[Finding]:
    """values: float32 (n, d), zero rows where there is none.  earlier: the `EmbeddingTable` of the night before.  fresh: bool (n,)."""
    has_vector = values.any(axis=1)
    lost = float((~has_vector[fresh]).mean()) if fresh.any() else 0.0
    said = f"{lost:.1%} of {int(fresh.sum())} new or changed items have no vector of {name}"
    findings = [_finding(f"{name}: without vector", lost, f"at most {limits.without_vector:.0%}", lost > limits.without_vector, said)]
    if artifact.manifest.metadata["space_id"] != earlier.space_id:
        return findings
    known = min(len(earlier.values), len(values))
    same = ~fresh[:known] & has_vector[:known]
    moved = ~np.isclose(values[:known][same], earlier.values[:known][same], atol=1e-3).all(axis=1)
    share = float(moved.mean()) if len(moved) else 0.0
    said = f"{int(moved.sum())} of {len(moved)} unchanged items have another vector of {name} than the night before, in the same space"
    findings.append(_finding(f"{name}: moved", share, f"at most {limits.moved:.0%}", share > limits.moved, said))
    new, old = values[fresh & has_vector], values[~fresh & has_vector]
    if min(len(new), len(old)) >= limits.min_items:
        drift = centre_shift(new, old)
        said = f"the mean vector of {len(new)} new or changed items is {drift:.2f} deviations off that of the others"
        findings.append(_finding(f"{name}: drift", drift, f"at most {limits.drift:g}", drift > limits.drift, said))
    return findings


def centre_shift(new: FloatArray, old: FloatArray) -> float:
    """Root mean square over dimensions of (mean of new - mean of old) / deviation of old, less what chance gives means of so many rows."""
    deviation = old.std(axis=0, dtype=np.float64)
    used = deviation > 1e-6
    if not used.any():
        return 0.0
    off = (new.mean(axis=0, dtype=np.float64) - old.mean(axis=0, dtype=np.float64))[used] / deviation[used]
    return float(np.sqrt(max(float((off**2).mean()) - 1 / len(new) - 1 / len(old), 0.0)))


def _judge(findings: list[Finding], limits: Limits, folder: Path, surroundings: Surroundings, facts: dict[str, Any]) -> Mapping[str, Any]:
    found = [each.violation for each in findings if each.violation]
    if found and limits.on_violation == "stop":
        raise DataError("stopped by the checks, nothing is published: " + "; ".join(found) + "; mend the day's files, or widen `limits` if this is meant")
    for violation in found:
        surroundings.reporter.say(f"  [yellow]check[/] {violation}")
    write_json(folder / REPORT, [asdict(each) for each in findings])
    return {**facts, "checks": len(findings), "violations": len(found)}


def _finding(name: str, value: float, limit: str, broken: bool, said: str) -> Finding:
    return Finding(name, round(float(value), 6), limit, f"{name}: {said}; the limit is {limit}" if broken else "")


def _missing(column: pl.Series) -> float:
    empty = column.is_null() if column.dtype != pl.String else column.is_null() | (column.str.strip_chars() == "")
    return float(empty.mean() or 0.0)  # type: ignore[arg-type]


def _rows(table: pl.DataFrame) -> list[str]:
    return [repr(row) for row in table.select(sorted(table.columns)).iter_rows()]
