"""A board of embeddings: each line's figures with intervals, and paired tests against one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.errors import ConfigError
from recsys.evaluation.bootstrap import percentile_intervals
from recsys.evaluation.metrics import MetricArray
from recsys.evaluation.report import plain
from recsys.evaluation.significance import compare_values

TITLES = {
    "item_to_item recall@10": "Item to item R@10",
    "over items mrr@10": "over items MRR@10",
    "over items recall@10": "over items R@10",
    "cold recall@10": "Cold R@10",
    "cold ndcg@10": "Cold N@10",
    "cold_only recall@10": "Cold only R@10",
    "cold_only ndcg@10": "Cold only N@10",
}
"""What the table shows, of what `ItemEmbeddingQuality.values` has."""
TESTED = ("cold recall@10", "over items recall@10")
"""What is compared. Each comparison costs a bootstrap, and Holm's correction is over all lines."""
ASKED = ("cold recall@10", "cold_only recall@10", "over items recall@10")
"""What questions are answered by."""

COUNTED = ("item_to_item", "over items", "cold", "cold_only")


@dataclass(frozen=True)
class EmbeddingLine:
    """values: metric -> float64 (N,), each case's mean over seeds.  by_seed: metric -> mean of each seed.
    without_vector: items that have none."""

    name: str
    label: str
    values: Mapping[str, MetricArray]
    by_seed: Mapping[str, Sequence[float]]
    dim: int
    space_ids: Sequence[str]
    trained: bool = False
    without_vector: int = 0


@dataclass(frozen=True)
class Question:
    """Is the line called `line` better than each of `than`?"""

    asks: str
    line: str
    than: Sequence[str]


def board_document(
    lines: Sequence[EmbeddingLine], against: str, *, dataset: str, split_hash: str, protocol: str, questions: Sequence[Question] = ()
) -> dict[str, Any]:
    """Plain values for JSON. A question with a line that is not among `lines` is left out.

    Raises:
        ConfigError: no line is called `against`.  ValueError: lines of different cases.
    """
    base = next((line for line in lines if line.name == against), None)
    if base is None:
        raise ConfigError(f"no line {against!r} on this board; it has: {', '.join(line.name for line in lines)}")
    for line in lines:
        if {m: len(v) for m, v in line.values.items()} != {m: len(v) for m, v in base.values.items()}:
            raise ValueError(f"{line.name!r} and {against!r} were measured on different cases")
    by_name = {line.name: line for line in lines}
    tests = {metric: _against(lines, against, metric) for metric in TESTED if metric in base.values}
    return {
        "dataset": dataset,
        "protocol": protocol,
        "split_hash": split_hash,
        "against": against,
        "cases": {name: len(base.values[f"{name} recall@10"]) for name in COUNTED if f"{name} recall@10" in base.values},
        "lines": [
            {
                "name": line.name,
                "label": line.label,
                "trained": line.trained,
                "seeds": len(line.space_ids),
                "dim": line.dim,
                "space_ids": list(line.space_ids),
                "items_without_vector": line.without_vector,
                "metrics": _figures(line),
                "against": {metric: found[line.name] for metric, found in tests.items() if line.name in found},
            }
            for line in lines
        ],
        "questions": [_answered(question, by_name) for question in questions if {question.line, *question.than} <= set(by_name)],
    }


def markdown(document: Mapping[str, Any]) -> str:
    lines = document["lines"]
    shown = [metric for metric in TITLES if metric in lines[0]["metrics"]]
    tested = [metric for metric in TESTED if metric in lines[0]["metrics"]]
    base = next(line for line in lines if line["name"] == document["against"])
    cases = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in document["cases"].items())
    head = ["Embedding", "dim", "seeds", *(TITLES[m] for m in shown), *(f"Δ {TITLES[m]} (p)" for m in tested)]
    rows = [
        [
            line["label"],
            str(line["dim"]),
            str(line["seeds"]),
            *(_shown(line["metrics"][m], best=_best(lines, m) == line["name"]) for m in shown),
            *(_tested(line["against"].get(m)) for m in tested),
        ]
        for line in lines
    ]
    table = "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] + ["--:"] * (len(head) - 1), *rows])
    return f"""# Embeddings of {document["dataset"]}

Nearest neighbours by cosine, nothing trained on top. Split {document["protocol"]} {document["split_hash"][:12]}; cases: {cases}.
Item to item: the last item before the target asks, all others are ranked; "over items" counts each item that asks once.
Cold: the mean of the history asks for an item that training never saw, among all items or among cold ones only.
± is half a 95 % bootstrap interval over cases; with several seeds each case counts with its mean over them.
Δ against {base["label"]}: difference, and p of the paired bootstrap after Holm's correction over all lines.

{table}
{_questions(document["questions"], {line["name"]: line["label"] for line in lines})}"""


def _answered(question: Question, by_name: Mapping[str, EmbeddingLine]) -> dict[str, Any]:
    """Holm's correction is over the lines of one question."""
    chosen = [by_name[name] for name in (question.line, *question.than)]
    metrics = [metric for metric in ASKED if metric in chosen[0].values]
    tests = {metric: compare_values({line.name: line.values[metric] for line in chosen}, question.line, metric) for metric in metrics}
    answers = [
        {
            "than": name,
            "tests": {
                metric: plain({"difference": c.difference, "low": c.low, "high": c.high, "p_bootstrap": c.p_bootstrap, "holm": c.holm, "holm_t": c.holm_t})
                for metric, found in tests.items()
                for c in found
                if c.baseline == name
            },
        }
        for name in question.than
    ]
    return {"asks": question.asks, "line": question.line, "answers": answers}


def _questions(questions: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> str:
    if not questions:
        return ""
    metrics = list(questions[0]["answers"][0]["tests"])
    head = ["Question", "Embedding", "less", *(f"Δ {TITLES[m]} [95 %] (p)" for m in metrics)]
    rows = [
        [
            question["asks"],
            labels[question["line"]],
            labels[answer["than"]],
            *(f"{t['difference']:+.4f} [{t['low']:+.4f}, {t['high']:+.4f}] ({_p(t['holm'])})" for t in answer["tests"].values()),
        ]
        for question in questions
        for answer in question["answers"]
    ]
    table = "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * 3 + ["--:"] * len(metrics), *rows])
    return f"""
## Asked

Differences paired over cases, with 95 % bootstrap intervals; p of the paired bootstrap after Holm's correction over the lines of one question.

{table}
"""


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else format(value, ".3f")


def _figures(line: EmbeddingLine) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    # Metrics over the same cases are resampled together.
    for count in {len(values) for values in line.values.values()}:
        names = [name for name, values in line.values.items() if len(values) == count and name in TITLES]
        if not names:
            continue
        intervals = percentile_intervals(np.stack([line.values[name] for name in names], axis=1), 0)
        for name, (low, high) in zip(names, intervals.tolist(), strict=True):
            figures[name] = {"mean": float(line.values[name].mean()), "low": low, "high": high, "seeds": list(line.by_seed[name])}
    return {name: figures[name] for name in TITLES if name in figures}


def _against(lines: Sequence[EmbeddingLine], against: str, metric: str) -> dict[str, Any]:
    """Line -> the line minus `against`."""
    # The tests are two-sided: with both sides exchanged only the sign changes.
    return {
        c.baseline: plain(
            {
                "difference": -c.difference,
                "low": -c.high,
                "high": -c.low,
                "p_bootstrap": c.p_bootstrap,
                "p_t": c.p_t,
                "holm": c.holm,
                "holm_t": c.holm_t,
                "better": c.worse,
                "worse": c.better,
            }
        )
        for c in compare_values({line.name: line.values[metric] for line in lines}, against, metric)
    }


def _best(lines: Sequence[Mapping[str, Any]], metric: str) -> str:
    return str(max(lines, key=lambda line: line["metrics"][metric]["mean"])["name"])


def _shown(figure: Mapping[str, Any], *, best: bool) -> str:
    text = f"{figure['mean']:.4f} ± {(figure['high'] - figure['low']) / 2:.4f}"
    return f"**{text}**" if best else text


def _tested(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None else f"{found['difference']:+.4f} ({_p(found['holm'])})"
