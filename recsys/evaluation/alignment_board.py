"""The board of A-LLMRec: its runs with the ranks of each case, what they say together, and the page of it.

A run is `<model>-seed<n>.json` and, for each kind of cases, `<model>-seed<n>.<kind>.parquet` beside it: two columns for each way and protocol, and
what the slices need of each case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.artifacts.atomic import read_json, write_bytes, write_json
from recsys.errors import ArtifactError
from recsys.evaluation.bootstrap import percentile_interval
from recsys.evaluation.metrics import MetricArray, metric_of
from recsys.evaluation.report import md_text, number
from recsys.types import BoolArray, IntArray

FORMAT = 1
SHARE = 0.35
"""Of the items, rarest and most frequent, that the paper calls cold and warm."""
SHORT = 5
"""Items of a history, at most, that is called short."""
WAYS = {"backbone": "frozen recommender", "stage1": "stage 1", "catalogue": "A-LLMRec, catalogue", "titles": "A-LLMRec, titles"}
METRICS = {"hit@1": ("sampled", 1), "recall@10": ("full", 10), "ndcg@10": ("full", 10)}
"""Metric -> protocol and cutoff."""
TITLES = {"hit@1": "Hit@1 of 1 + 19", "recall@10": "Recall@10", "ndcg@10": "NDCG@10"}


@dataclass(frozen=True)
class Ranks:
    """better, tied: int64 (N,), the place of the targets (see `evaluation.metrics`)."""

    better: IntArray
    tied: IntArray


@dataclass(frozen=True)
class Slicing:
    """target_counts: int64 (N,), training interactions of the targets.  history_lengths: int64 (N,), of what is read."""

    target_counts: IntArray
    history_lengths: IntArray

    def masks(self, borders: Mapping[str, int]) -> dict[str, BoolArray]:
        """Slice -> bool (N,). `rare` and `frequent` are the paper's cold and warm items; the others do not overlap but for `short history`."""
        counts = self.target_counts
        everything = np.ones(len(counts), dtype=np.bool_)
        return {
            "all": everything,
            "new items": counts == 0,
            "few-shot items": (counts > 0) & (counts <= borders["few"]),
            "rare items": counts <= borders["rare"],
            "frequent items": counts >= borders["frequent"],
            "short history": self.history_lengths <= SHORT,
        }


@dataclass(frozen=True)
class AlignmentRun:
    """ranks: "kind/way/protocol" -> ranks.  slicings: kind -> slicing."""

    document: dict[str, Any]
    ranks: Mapping[str, Ranks]
    slicings: Mapping[str, Slicing]

    @property
    def model(self) -> str:
        return str(self.document["model"])

    def values(self, kind: str, way: str, metric: str) -> MetricArray | None:
        """float64 (N,); None where it was not measured."""
        found = self.ranks.get(f"{kind}/{way}/{METRICS[metric][0]}")
        return None if found is None else metric_of(metric.partition("@")[0])(found.better, found.tied, METRICS[metric][1])

    def masks(self, kind: str) -> dict[str, BoolArray]:
        return self.slicings[kind].masks(self.document["item_borders"])


def item_borders(item_counts: IntArray) -> dict[str, int]:
    """Training interactions: `rare` at most, `frequent` at least, and `few` at most. Ties at a border belong to it."""
    rare, frequent = np.quantile(item_counts, (SHARE, 1.0 - SHARE), method="inverted_cdf") if len(item_counts) else (0, 0)
    return {"rare": int(rare), "frequent": int(frequent), "few": 5}


def figures_of(kind: str, ranks: Mapping[str, Ranks], slicing: Slicing, borders: Mapping[str, int]) -> dict[str, dict[str, dict[str, float | None]]]:
    """way -> slice -> {"count", "hit@1", "recall@10", "ndcg@10"}; null where there are no cases or it was not measured."""
    run = AlignmentRun({"item_borders": dict(borders)}, ranks, {kind: slicing})
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for way in WAYS:
        values = {metric: run.values(kind, way, metric) for metric in METRICS}
        if any(value is not None for value in values.values()):
            found[way] = {name: {"count": float(mask.sum()), **{m: _mean(v, mask) for m, v in values.items()}} for name, mask in run.masks(kind).items()}
    return found


def write_alignment_run(path: Path, document: Mapping[str, Any], ranks: Mapping[str, Ranks], slicings: Mapping[str, Slicing]) -> None:
    for kind, slicing in slicings.items():
        columns = {"target_count": slicing.target_counts, "history_length": slicing.history_lengths}
        for name, each in ranks.items():
            if name.startswith(f"{kind}/"):
                columns |= {f"{name}/better": each.better, f"{name}/tied": each.tied}
        file = path.with_name(f"{path.stem}.{kind}.parquet")
        file.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame({name: values.astype(np.int32) for name, values in columns.items()}).write_parquet(
            temporary := file.with_suffix(".tmp"), compression="zstd"
        )
        write_bytes(file, temporary.read_bytes())
        temporary.unlink()
    # The JSON comes last: where it stands, the run is whole.
    write_json(path, {"format": FORMAT, "kinds": sorted(slicings), **document})


def read_alignment_run(path: Path) -> AlignmentRun:
    """Raises ArtifactError: no run, one of another version, or without its ranks."""
    try:
        document = read_json(path)
        if document["format"] != FORMAT:
            raise ArtifactError(f"{path}: format {document['format']}, this code reads {FORMAT}")
        ranks, slicings = dict[str, Ranks](), dict[str, Slicing]()
        for kind in document["kinds"]:
            frame = pl.read_parquet(path.with_name(f"{path.stem}.{kind}.parquet")).cast(pl.Int64)
            slicings[kind] = Slicing(frame["target_count"].to_numpy(), frame["history_length"].to_numpy())
            for column in frame.columns:
                if column.endswith("/better"):
                    name = column.removesuffix("/better")
                    ranks[name] = Ranks(frame[column].to_numpy(), frame[f"{name}/tied"].to_numpy())
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(f"{path}: not a run of A-LLMRec: {error}") from None
    return AlignmentRun(document, ranks, slicings)


def read_alignment_board(folder: Path) -> list[AlignmentRun]:
    """By model, then seed."""
    runs = [read_alignment_run(path) for path in folder.glob("*-seed*.json")]
    return sorted(runs, key=lambda run: (run.model, int(run.document["seed"])))


def board_document(runs: Sequence[AlignmentRun], order: Sequence[str]) -> dict[str, Any]:
    """Plain values: each model's figures over its seeds, and the difference of each way to the frozen recommender of the same run, paired over cases.

    order: names of models, as they are to stand; those without runs are left out.
    """
    by_model: dict[str, list[AlignmentRun]] = {}
    for run in runs:
        by_model.setdefault(run.model, []).append(run)
    models = []
    for name in (n for n in order if n in by_model):
        own = by_model[name]
        kinds = {kind: _kind(own, kind) for kind in own[0].document["kinds"]}
        models.append({"model": name, "label": own[0].document["label"], "seeds": [run.document["seed"] for run in own], "kinds": kinds})
    left_out = ("curves", "figures")
    return {"models": models, "runs": [{key: value for key, value in run.document.items() if key not in left_out} for run in runs]}


def _kind(runs: Sequence[AlignmentRun], kind: str) -> dict[str, Any]:
    """way -> slice -> count and for each metric mean, deviation over seeds, and where it is another way than the recommender the paired difference."""
    masks, found = runs[0].masks(kind), dict[str, Any]()
    for way in WAYS:
        rows: dict[str, Any] = {}
        for name, mask in masks.items():
            row: dict[str, Any] = {"count": int(mask.sum())}
            for metric in METRICS:
                seeds = [run.values(kind, way, metric) for run in runs]
                if any(values is None for values in seeds) or not mask.any():
                    continue
                means = [float(values[mask].mean()) for values in seeds if values is not None]
                row[metric] = {"mean": float(np.mean(means)), "deviation": float(np.std(means, ddof=1)) if len(means) > 1 else None}
                base = [run.values(kind, "backbone", metric) for run in runs]
                if way != "backbone" and all(values is not None for values in base):
                    way_mean, base_mean = (np.mean([values[mask] for values in each if values is not None], axis=0) for each in (seeds, base))
                    low, high = percentile_interval(way_mean - base_mean, 0)
                    row[metric] |= {"difference": float((way_mean - base_mean).mean()), "low": low, "high": high}
            if len(row) > 1:
                rows[name] = row
        if rows:
            found[way] = rows
    return found


def markdown(dataset: str, document: Mapping[str, Any], command: str) -> str:
    lines = [
        f"# A-LLMRec on {md_text(dataset)}",
        "",
        f"Made by `{command}` from the runs in `a_llmrec/`; do not edit.",
        "",
        "Four ways on the same cases: the *frozen recommender* alone; *stage 1*, its states against vectors decoded from the joint space;",
        "*A-LLMRec, catalogue*: the state of the language model at the prompt's last token against projected items, beside stage 1;",
        "*A-LLMRec, titles*: candidates by the likelihood of their titles, by the token. Hit@1 is among the target and 19 fixed items that",
        "the user did not meet, drawn by hash and the same for all; the other figures rank the whole catalogue.",
        f"Rare and frequent items are the {SHARE:.0%} of the items with the fewest and most training interactions (what the paper calls cold and",
        f"warm; ties at the border belong to it), new ones have none, few-shot ones 1 to 5; a short history is of at most {SHORT} items.",
        "Items that a way cannot score rank last.",
        "",
        "In brackets: difference to the frozen recommender of the same run, 95 % interval by paired bootstrap over cases (seeds averaged first);",
        "± over seeds.",
        "",
    ]
    for model in document["models"]:
        runs = [run for run in document["runs"] if run["model"] == model["model"]]
        lines += _model_lines(model, runs)
    lines += ["## Cost", "", *_cost_lines(document), "", "Commands:", ""]
    lines += [f"- `{command}`" for command in dict.fromkeys(run["command"] for run in document["runs"])]
    return "\n".join(lines) + "\n"


def _model_lines(model: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    first = runs[0]
    users = ", ".join(f"{name} {count:,}" for name, count in first["users"].items() if name != "list")
    lines = [f"## {md_text(model['label'])}", "", f"Protocol {md_text(first['protocol'])}, seeds {len(runs)}; users: {users}.", ""]
    if capped := sorted({cap for run in runs for cap in run["capped"]}):
        lines += [f"Capped: {', '.join(capped)}.", ""]
    for kind, ways in model["kinds"].items():
        lines += [f"Cases: {kind}.", "", "| way | slice | cases | " + " | ".join(TITLES.values()) + " |", "|---|---|---|---|---|---|"]
        for way, slices in ways.items():
            for name, row in slices.items():
                lines.append(f"| {WAYS[way]} | {name} | {row['count']:,} | " + " | ".join(_cell(row.get(metric)) for metric in METRICS) + " |")
        lines.append("")
    return lines


def _cell(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "–"
    text = number(value["mean"], 4) + (f" ± {number(value['deviation'], 4)}" if value["deviation"] is not None else "")
    if "difference" in value:
        text += f" ({value['difference']:+.4f} [{value['low']:+.4f}, {value['high']:+.4f}])"
    return text


def _cost_lines(document: Mapping[str, Any]) -> list[str]:
    head = ("model", "seed", "stage 1: s, parameters, epochs (best)", "stage 2", "ms a user: " + ", ".join(WAYS), "peak MB", "threads", "commit")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for run in document["runs"]:
        stages = [f"{run['seconds'][s]:,.0f} s, {run['parameters'][s]:,}, {run['epochs'][s][0]} ({run['epochs'][s][1]})" for s in ("stage 1", "stage 2")]
        times = ", ".join(number(run["milliseconds"][way], 2) if way in run["milliseconds"] else "–" for way in WAYS)
        cells = (md_text(run["model"]), str(run["seed"]), *stages, times, f"{run['peak_mb']:,.0f}", str(run["threads"]), run["commit"][:12])
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _mean(values: MetricArray | None, mask: BoolArray) -> float | None:
    return None if values is None or not mask.any() else float(values[mask].mean())
