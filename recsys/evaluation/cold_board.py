"""The cold board: warm and cold accuracy of each model, beside nearest neighbours and beside the model trained for warm items alone,
and lists with reserved slots for new items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.evaluation.bootstrap import resampled_means
from recsys.evaluation.metrics import MetricArray
from recsys.evaluation.report import md_text, number
from recsys.evaluation.reserved import reserved_recall
from recsys.evaluation.run_comparison import MetricDifference, compare_runs, p_text
from recsys.evaluation.run_record import read_ranks
from recsys.evaluation.run_values import Run, values_over_seeds

K = 10
Runs = Mapping[str, Mapping[str, Sequence[Run]]]
"""Kind of cases ("warm", "cold", "known", "new") -> model -> its seeds."""


@dataclass(frozen=True)
class Interval:
    """Mean over cases, each with its mean over seeds, and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ColdRow:
    """warm: NDCG@10 of known targets among all items.  cold, new: Recall@10 of new targets among all items, and among new ones alone.
    to_nearest: kind "cold" or "new" -> difference to nearest neighbours.  to_warm: NDCG@10 less that of the model for warm items."""

    model: str
    label: str
    seeds: int
    warm: Interval
    warm_recall: Interval
    cold: Interval
    new: Interval
    to_nearest: Mapping[str, MetricDifference]
    to_warm: MetricDifference | None
    parameters: float
    train_seconds: float


@dataclass(frozen=True)
class SlotsRow:
    """affected: Recall@10 of the cases with a new target.  all: of all cases.  plain: of all cases, by the model for known items with no slots."""

    label: str
    share: float
    affected: Interval
    everyone: Interval
    plain: float

    @property
    def loss(self) -> float:
        """Relative, of all cases: below 0 the slots gain."""
        return 1 - self.everyone.mean / self.plain if self.plain else float("nan")


def cold_rows(runs: Runs, models: Sequence[str], *, nearest: str, warm: str, seed: int = 0) -> list[ColdRow]:
    """Of the models that have runs of all four kinds, in the order of `models`."""
    rows = []
    for model in finished(runs, models):
        of_nearest = {kind: runs[kind][nearest] for kind in ("cold", "new") if model != nearest and runs[kind].get(nearest)}
        of_warm = runs["warm"].get(warm) if model != warm else None
        record = runs["warm"][model][-1][1]
        rows.append(
            ColdRow(
                model=model,
                label=record.label,
                seeds=len(runs["warm"][model]),
                warm=_interval(values_over_seeds(runs["warm"][model], ["ndcg@10"])["ndcg@10"], seed),
                warm_recall=_interval(values_over_seeds(runs["warm"][model], ["recall@10"])["recall@10"], seed),
                cold=_interval(values_over_seeds(runs["cold"][model], ["recall@10"])["recall@10"], seed),
                new=_interval(values_over_seeds(runs["new"][model], ["recall@10"])["recall@10"], seed),
                to_nearest={kind: compare_runs(runs[kind][model], other, ["recall@10"], seed=seed)[0] for kind, other in of_nearest.items()},
                to_warm=compare_runs(runs["warm"][model], of_warm, ["ndcg@10"], seed=seed)[0] if of_warm else None,
                parameters=float(np.mean([r.parameters for _, r in runs["warm"][model]])),
                train_seconds=float(np.mean([r.train_seconds for _, r in runs["warm"][model]])),
            )
        )
    return rows


def finished(runs: Runs, models: Sequence[str]) -> list[str]:
    return [model for model in models if all(runs[kind].get(model) for kind in ("warm", "cold", "known", "new"))]


def slots_row(label: str, runs: Runs, known: str, new: str, share: float, *, seed: int = 0) -> SlotsRow:
    """The first places by model `known`, the reserved ones by model `new`; a seed of the one with that seed of the other, where it has so many."""
    firsts, seconds = list(runs["known"][known]), list(runs["new"][new])
    pairs = [(firsts[i % len(firsts)], seconds[i % len(seconds)]) for i in range(max(len(firsts), len(seconds)))]
    found = [reserved_recall(read_ranks(first), read_ranks(second), K, share) for (first, _), (second, _) in pairs]
    of_known, of_new = (np.mean([parts[side] for parts in found], axis=0) for side in (0, 1))
    plain = [values_over_seeds(runs[kind][known], ["recall@10"])["recall@10"] for kind in ("warm", "cold")]
    return SlotsRow(
        label=label,
        share=share,
        affected=_interval(of_new, seed),
        everyone=_interval(np.concatenate([of_known, of_new]), seed),
        plain=float(np.concatenate(plain).mean()),
    )


def _interval(values: MetricArray, seed: int) -> Interval:
    low, high = np.quantile(resampled_means(values, seed), (0.025, 0.975)) if len(values) else (np.nan, np.nan)
    return Interval(float(values.mean()) if len(values) else float("nan"), float(low), float(high))


def markdown(dataset: str, parts: Sequence[tuple[str, Runs, Sequence[ColdRow], Sequence[SlotsRow]]], *, nearest: str, warm: str) -> str:
    """parts: (name of the split, its runs, rows, rows with reserved slots)."""
    lines = [
        f"# Cold items of {md_text(dataset)}",
        "",
        f"Made by `recsys cold-board {dataset.replace('`', '')}` from the records in `cold/`; do not edit.",
        "",
        "[95 % bootstrap interval over cases, each with its mean over seeds]; differences are paired over cases. An ID-only model cannot rank what it "
        "never saw: its cold figures are 0 by construction.",
        "",
    ]
    for name, runs, rows, slots in parts:
        if not rows:
            continue
        first = runs["warm"][rows[0].model][0][1]
        cases = {kind: runs[kind][rows[0].model][0][1].cases for kind in ("warm", "cold")}
        protocol = first.protocol.partition(",")[0]
        lines += [
            f"## {md_text(name)} ({md_text(protocol)}, split {first.split_hash[:12]})",
            "",
            f"{first.data.get('items_without_training', 0):,} items without training; {cases['warm']:,} warm and {cases['cold']:,} cold cases.",
            "",
            "| model | seeds | warm NDCG@10 | to the warm model | cold Recall@10, all items | to nearest | cold Recall@10, new items alone | to nearest |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            cells = [
                _interval_text(row.warm),
                _relative(row.to_warm),
                _interval_text(row.cold),
                _times(row, "cold"),
                _interval_text(row.new),
                _times(row, "new"),
            ]
            lines.append(f"| {md_text(f'{row.label} ({row.model})')} | {row.seeds} | " + " | ".join(cells) + " |")
        lines += ["", f"Nearest: `{nearest}`; the warm model: `{warm}`.", ""]
        if slots:
            lines += [
                "Reserved slots: the last places of a list of ten are for items that training never saw.",
                "",
                "| list | share | Recall@10 of users with a new target | Recall@10 of all | without slots | loss of all |",
                "|---|---|---|---|---|---|",
                *(
                    f"| {md_text(s.label)} | {s.share:g} | {_interval_text(s.affected)} | {_interval_text(s.everyone)} | {number(s.plain)} | {s.loss:+.1%} |"
                    for s in slots
                ),
                "",
            ]
    return "\n".join(lines)


def _interval_text(value: Interval) -> str:
    return f"{number(value.mean)} [{number(value.low)}, {number(value.high)}]"


def _relative(difference: MetricDifference | None) -> str:
    if difference is None:
        return "–"
    return f"{difference.relative:+.1%} ({difference.difference:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}], {p_text(difference.p_bootstrap)})"


def _times(row: ColdRow, kind: str) -> str:
    difference = row.to_nearest.get(kind)
    if difference is None:
        return "–"
    return f"{number(1 + difference.relative, 2)} x, {p_text(difference.p_bootstrap)}"
