"""The ladder of a board: models that differ by one signal each, every rung beside the one below it and beside the lowest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.evaluation.bootstrap import resampled_means
from recsys.evaluation.report import md_text, number
from recsys.evaluation.run_comparison import MetricDifference, compare_runs, p_text
from recsys.evaluation.run_values import Run, values_over_seeds
from recsys.evaluation.significance import holm

METRICS = ("recall@10", "ndcg@10")


@dataclass(frozen=True)
class Level:
    """A metric of one rung: mean and deviation over seeds, 95 % bootstrap over cases (each with its mean over seeds)."""

    mean: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True)
class Rung:
    """to_base, to_previous: metric -> difference to the lowest rung and to the one below, None of the lowest; `holm` is corrected
    over all rungs. few, head: Recall@10 of targets with 1 to 5 training interactions, and of the most popular fifth."""

    model: str
    label: str
    seeds: int
    levels: Mapping[str, Level]
    to_base: Mapping[str, MetricDifference] | None
    to_previous: Mapping[str, MetricDifference] | None
    few: float
    head: float
    parameters: float
    train_seconds: float
    ms_per_user: float
    threads: tuple[int, ...]
    spaces: Mapping[str, str]
    capped: tuple[str, ...]


def ladder(models: Sequence[Sequence[Run]], *, seed: int = 0) -> list[Rung]:
    """`models`: the seeds of each model, lowest rung first.

    Raises:
        DataError: the runs are not of one split; lists the files.  ArtifactError: ranks that are missing or of another run.
    """
    base = _corrected([_differences(runs, models[0], seed) if number else None for number, runs in enumerate(models)])
    previous = _corrected([_differences(runs, models[number - 1], seed) if number else None for number, runs in enumerate(models)])
    return [_rung(runs, base[number], previous[number], seed) for number, runs in enumerate(models)]


def _differences(runs: Sequence[Run], other: Sequence[Run], seed: int) -> dict[str, MetricDifference]:
    return {d.metric: d for d in compare_runs(runs, other, METRICS, seed=seed)}


def _corrected(rungs: Sequence[Mapping[str, MetricDifference] | None]) -> list[Mapping[str, MetricDifference] | None]:
    known = [rung for rung in rungs if rung is not None]
    p_of = {metric: iter(holm([rung[metric].p_bootstrap for rung in known])) for metric in METRICS}
    return [None if r is None else {m: MetricDifference(**{**vars(d), "holm": next(p_of[m])}) for m, d in r.items()} for r in rungs]


def _rung(runs: Sequence[Run], base: Mapping[str, MetricDifference] | None, previous: Mapping[str, MetricDifference] | None, seed: int) -> Rung:
    records = [record for _, record in runs]
    values = values_over_seeds(runs, METRICS)
    levels = {}
    for metric, cases in values.items():
        low, high = np.quantile(resampled_means(cases, seed), (0.025, 0.975)) if len(cases) else (math.nan, math.nan)
        means = [record.metrics[metric] for record in records]
        levels[metric] = Level(float(np.mean(means)), float(np.std(means, ddof=1)) if len(means) > 1 else math.nan, float(low), float(high))

    def sliced(name: str) -> float:
        found = [value for record in records if (value := record.slices.get(name, {}).get("recall@10")) is not None]
        return float(np.mean(found)) if found else math.nan

    return Rung(
        model=records[-1].model,
        label=records[-1].label,
        seeds=len(records),
        levels=levels,
        to_base=base,
        to_previous=previous,
        few=sliced("few-shot"),
        head=sliced("head"),
        parameters=float(np.mean([record.parameters for record in records])),
        train_seconds=float(np.mean([record.train_seconds for record in records])),
        ms_per_user=float(np.mean([record.inference_ms_per_user for record in records])),
        threads=tuple(sorted({record.threads for record in records})),
        spaces=dict(records[-1].spaces),
        capped=tuple(sorted({record.capped for record in records if record.capped})),
    )


def markdown(dataset: str, rungs: Sequence[Rung], cases: int, waiting: Sequence[str] = ()) -> str:
    """waiting: rungs without a run yet."""
    lines = [
        f"# The ladder of {md_text(dataset)}",
        "",
        f"Made by `recsys board {dataset.replace('`', '')}` from the records in this folder; do not edit. {cases:,} test cases.",
        "",
        "Mean ± sample standard deviation over seeds, [95 % bootstrap interval over test cases, each with its mean over seeds]. Δ: paired over the test "
        "cases, with its 95 % interval and the p of the paired bootstrap after Holm over the column. Rungs that do not help stay.",
        "",
        "| rung | seeds | Recall@10 | NDCG@10 | few-shot Recall@10 | head Recall@10 |",
        "|---|---|---|---|---|---|",
        *(_row(_name(r), r.seeds, *(_level(r.levels[m]) for m in METRICS), number(r.few), number(r.head)) for r in rungs),
        "",
        f"| rung | Δ Recall@10 to {md_text(rungs[0].label)} | Δ NDCG@10 | Δ Recall@10 to the rung above it here | Δ NDCG@10 |",
        "|---|---|---|---|---|",
        *(_row(_name(r), *(_delta(d, m) for d in (r.to_base, r.to_previous) for m in METRICS)) for r in rungs[1:]),
        "",
        "| rung | parameters | train s | ms / user | threads | spaces |",
        "|---|---|---|---|---|---|",
        *(_row(_name(r), f"{r.parameters:,.0f}", _seconds(r), number(r.ms_per_user, 3), ", ".join(map(str, r.threads)), _spaces(r)) for r in rungs),
        "",
    ]
    if waiting:
        lines += [f"Not run yet: {', '.join(md_text(name) for name in waiting)}.", ""]
    return "\n".join(lines)


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _name(rung: Rung) -> str:
    return md_text(f"{rung.label} ({rung.model})")


def _level(level: Level) -> str:
    spread = f" ± {number(level.deviation)}" if math.isfinite(level.deviation) else ""
    return f"{number(level.mean)}{spread} [{number(level.low)}, {number(level.high)}]"


def _delta(differences: Mapping[str, MetricDifference] | None, metric: str) -> str:
    if differences is None:
        return "–"
    d = differences[metric]
    return f"{d.difference:+.4f} [{d.low:+.4f}, {d.high:+.4f}], {d.relative:+.1%}, {p_text(d.holm)}"


def _seconds(rung: Rung) -> str:
    return f"{rung.train_seconds:,.0f}" + (f", capped ({'; '.join(rung.capped)})" if rung.capped else "")


def _spaces(rung: Rung) -> str:
    return ", ".join(f"{md_text(name)} `{space}`" for name, space in rung.spaces.items()) or "–"
