"""`Board`: all runs of one data set and split as one table, a row a model, with intervals and marks that need significance."""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recsys.errors import DataError
from recsys.evaluation.bootstrap import RESAMPLES, resampled_means
from recsys.evaluation.metrics import MetricArray
from recsys.evaluation.report import plain
from recsys.evaluation.run_record import RunRecord
from recsys.evaluation.run_values import Run, one_split, values_over_seeds
from recsys.evaluation.significance import holm
from recsys.evaluation.slices import POPULARITY

TESTED = ("recall@10", "ndcg@10", "mrr@10", "recall@5", "ndcg@5", "recall@20", "ndcg@20")
ORDER = "ndcg@10"
LEVEL = 0.05


class Mark(enum.Enum):
    BEST = "best"
    """Better than every other model: each paired difference has a Holm-corrected p below 0.05."""
    TOP = "top"
    """The highest, and those that these cases cannot tell from it."""
    NONE = ""


@dataclass(frozen=True)
class Measured:
    """A metric of the test cases. deviation: sample standard deviation over seeds, NaN of one seed.
    low, high: 95 % bootstrap over cases, each case with its mean over seeds. gap: Holm-corrected p against the leader."""

    mean: float
    deviation: float
    low: float
    high: float
    gap: float
    mark: Mark


@dataclass(frozen=True)
class Figure:
    """Any other figure: mean and sample standard deviation over seeds; NaN where undefined."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class BoardRow:
    """curves: seed -> (epochs, validation NDCG@10).  stale: seeds whose settings differ from the newest run's."""

    model: str
    label: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Measured]
    figures: Mapping[str, Figure]
    capped: tuple[str, ...]
    curves: Mapping[int, tuple[tuple[float, ...], tuple[float, ...]]]
    commits: tuple[str, ...]
    commands: tuple[str, ...]
    first: str
    last: str
    stale: tuple[int, ...]


@dataclass(frozen=True)
class Board:
    """rows: best NDCG@10 first.  slice_counts: slice -> test cases in it."""

    dataset: str
    protocol: str
    split_hash: str
    cases: int
    rows: tuple[BoardRow, ...]
    slice_counts: Mapping[str, int]


FIGURES: Mapping[str, Callable[[RunRecord], float | None]] = {
    "unmasked recall@5": lambda r: r.unmasked.get("recall@5"),
    "unmasked recall@10": lambda r: r.unmasked.get("recall@10"),
    "unmasked ndcg@5": lambda r: r.unmasked.get("ndcg@5"),
    "unmasked ndcg@10": lambda r: r.unmasked.get("ndcg@10"),
    "validation ndcg@10": lambda r: r.validation.get("ndcg@10"),
    "validation/test": lambda r: _ratio(r.validation.get("ndcg@10"), r.metrics.get("ndcg@10")),
    "coverage@10": lambda r: r.beyond.get("coverage@10"),
    **{f"{name} recall@10": (lambda r, name=name: r.slices.get(name, {}).get("recall@10")) for name in POPULARITY},  # type: ignore[misc]
    "parameters": lambda r: r.parameters,
    "epochs": lambda r: r.epochs,
    "best epoch": lambda r: r.best_epoch,
    "train seconds": lambda r: r.train_seconds,
    "ms per user": lambda r: r.inference_ms_per_user,
    "peak MB": lambda r: r.peak_rss_mb,
    "threads": lambda r: r.threads,
}


def build_boards(runs: Sequence[Run], *, seed: int = 0, resamples: int = RESAMPLES) -> list[Board]:
    """A board a protocol, sorted by its name.

    Raises:
        DataError: one protocol with two splits, or two records of one model and seed; lists the files.
        ArtifactError: ranks that are missing, unreadable or of another run.
    """
    protocols = sorted({(record.dataset, record.protocol) for _, record in runs})
    return [_board([run for run in runs if (run[1].dataset, run[1].protocol) == key], seed, resamples) for key in protocols]


def board_json(board: Board) -> Any:
    """Plain values; what is undefined is null."""
    return _named(plain(asdict(board)))


def _board(runs: Sequence[Run], seed: int, resamples: int) -> Board:
    facts = runs[0][1]
    one_split(runs, f"board of {facts.dataset}, {facts.protocol}")
    models: dict[str, list[Run]] = {}
    for run in runs:
        models.setdefault(run[1].model, []).append(run)
    for name, seeds in models.items():
        seeds.sort(key=lambda run: run[1].seed)
        for one, other in itertools.pairwise(seeds):
            if one[1].seed == other[1].seed:
                raise DataError(f"two records of {name!r} with seed {one[1].seed}: {one[0]} and {other[0]}; remove one")
    tested = [metric for metric in TESTED if all(metric in record.metrics for _, record in runs)]
    values = {name: values_over_seeds(seeds, tested) for name, seeds in models.items()}
    measured: dict[str, dict[str, Measured]] = {name: {} for name in models}
    for metric in tested:
        means = resampled_means(np.column_stack([values[name][metric] for name in models]), seed, resamples)
        deviations = [_spread([record.metrics[metric] for _, record in seeds]).deviation for seeds in models.values()]
        for name, entry in zip(models, _column([values[name][metric] for name in models], means, deviations), strict=True):
            measured[name][metric] = entry
    rows = [_row(seeds, measured[name]) for name, seeds in models.items()]
    rows.sort(key=lambda row: (-row.metrics[ORDER].mean if ORDER in row.metrics else 0.0, row.model))
    counts = {name: count for name in POPULARITY for _, r in runs if (count := r.slices.get(name, {}).get("count")) is not None}
    return Board(facts.dataset, facts.protocol, facts.split_hash, facts.cases, tuple(rows), {k: int(v) for k, v in counts.items()})


def _column(values: Sequence[MetricArray], means: MetricArray, deviations: Sequence[float]) -> list[Measured]:
    """One metric of all models, in their order; means (resamples, models)."""
    observed = np.array([float(v.mean()) if len(v) else math.nan for v in values])
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    if len(values) == 1 or not np.isfinite(observed).all():
        return [Measured(o, d, float(x), float(y), math.nan, Mark.NONE) for o, d, x, y in zip(observed.tolist(), deviations, low, high, strict=True)]
    leader = int(np.argmax(observed))
    others = [i for i in range(len(values)) if i != leader]
    p_values = [_paired_p(means[:, leader] - means[:, i], observed[leader] - observed[i]) for i in others]
    gaps = dict(zip(others, holm(p_values), strict=True))
    top = {leader, *(i for i, p in gaps.items() if p >= LEVEL)}
    marks = [Mark.NONE if i not in top else Mark.BEST if len(top) == 1 else Mark.TOP for i in range(len(values))]
    return [Measured(float(observed[i]), deviations[i], float(low[i]), float(high[i]), gaps.get(i, math.nan), marks[i]) for i in range(len(values))]


def _paired_p(differences: MetricArray, observed: float) -> float:
    """`significance.paired_bootstrap` from the resampled means (resamples,) of the difference."""
    # Rounding must not make a tie look rarer than it is; the two means of a resample are rounded apart.
    return float((1 + (np.abs(differences - observed) >= abs(observed) - 1e-12).sum()) / (len(differences) + 1))


def _row(seeds: Sequence[Run], metrics: Mapping[str, Measured]) -> BoardRow:
    records = [record for _, record in seeds]
    newest = max(records, key=lambda r: r.created)
    return BoardRow(
        model=newest.model,
        label=newest.label,
        seeds=tuple(r.seed for r in records),
        metrics=metrics,
        figures={name: _spread([value for r in records if (value := figure(r)) is not None]) for name, figure in FIGURES.items()},
        capped=tuple(sorted({r.capped for r in records if r.capped})),
        curves={r.seed: curve for r in records if (curve := _curve(r))[0]},
        commits=tuple(dict.fromkeys(r.commit for r in records)),
        commands=tuple(dict.fromkeys(r.command for r in records)),
        first=min(r.created for r in records),
        last=newest.created,
        stale=tuple(r.seed for r in records if _differ(r.config, newest.config)),
    )


def _curve(record: RunRecord) -> tuple[tuple[float, ...], tuple[float, ...]]:
    points = [(p.get("epoch", float(i + 1)), p["validation"]) for i, p in enumerate(record.curve) if "validation" in p]
    return tuple(x for x, _ in points), tuple(y for _, y in points)


def _spread(values: Sequence[float]) -> Figure:
    if not values:
        return Figure(math.nan, math.nan)
    return Figure(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan)


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _named(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _named(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_named(v) for v in value]
    return value.value if isinstance(value, Mark) else value


def _differ(a: object, b: object) -> bool:
    """Whether two settings contradict each other. A key that only one has is a field that was added since."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return any(_differ(a[key], b[key]) for key in a.keys() & b.keys())
    return a != b
