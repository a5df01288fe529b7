"""From a run's evaluations to its report: HTML with plots, Markdown and JSON beside it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import ingest, rank, split
from pipelines.ingest import Ingested
from pipelines.stage import Inputs
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import read_json
from recsys.data.split import Split
from recsys.embeddings.table import EmbeddingTable
from recsys.evaluation.evaluate import Evaluation
from recsys.evaluation.projection import map_2d
from recsys.evaluation.report import (
    Curve,
    DataFacts,
    ItemMap,
    Measure,
    ModelRow,
    PopularityRecall,
    Recommended,
    Report,
    Sample,
    SignificanceRow,
    StageRow,
    write_report,
    write_report_json,
    write_report_markdown,
)
from recsys.evaluation.significance import compare
from recsys.evaluation.slices import bucket_masks
from recsys.heads.fusion import FusedRanker
from recsys.ranking.topk import top_k

FUSED = "fused"
SAMPLE_USERS, SAMPLE_HISTORY, SAMPLE_ITEMS = 4, 6, 8
VERSIONS = ("torch", "transformers", "ray", "polars", "recbole", "mlflow", "feast")


def write(
    folder: Path,
    inputs: Inputs,
    evaluations: Mapping[str, Mapping[str, Evaluation]],
    rows: list[dict[str, Any]],
    labels: Mapping[str, str],
    tables: Mapping[str, EmbeddingTable],
) -> None:
    """report.html, report.md and report.json into `folder`."""
    data, data_split = ingest.load(inputs["data"]), split.load(inputs["split:warm"])
    ranker = rank.load(inputs["rank:warm"])
    spaces = {name: table.space_id for name, table in tables.items()}
    report = Report(
        title=f"Recommenders on {_source_name(inputs['data'])}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        data=_data_facts(inputs),
        models=tuple(_model_row(row) for row in rows),
        summary=_summary(rows),
        curves=_curves(inputs),
        popularity=_popularity(evaluations["warm"], data_split, labels),
        maps=_maps(tables, data),
        significance=_significance(evaluations, labels),
        stages=tuple(_stage_row(role, artifact) for role, artifact in inputs.items()),
        spaces=spaces,
        versions={name: importlib.metadata.version(name) for name in VERSIONS},
        samples=_samples(ranker, data_split, data),
    )
    write_report(folder / "report.html", report)
    write_report_json(folder / "report.json", report)
    write_report_markdown(folder / "report.md", report)


def _source_name(artifact: Artifact) -> str:
    source = artifact.manifest.metadata["config"]["source"]
    return str(source["dataset"] if source["kind"] == "recbole" else Path(source["interactions"]["path"]).stem)


def _data_facts(inputs: Inputs) -> DataFacts:
    facts, of_split = inputs["data"].manifest.metadata, inputs["split:warm"].manifest.metadata
    cold = inputs["split:cold"].manifest.metadata if "split:cold" in inputs else {}
    return DataFacts(
        name=_source_name(inputs["data"]),
        users=facts["users"],
        items=facts["items"],
        interactions=facts["interactions"],
        protocol=of_split["protocol"],
        split_hash=of_split["split_hash"],
        quarantine={**facts["quarantine"], **_refused(inputs), **{f"kept: {note}": count for note, count in facts["notes"].items()}},
        test_cases=of_split["test_cases"],
        cold_cases=cold.get("cold_cases", 0),
    )


def _refused(inputs: Inputs) -> dict[str, int]:
    """Items that an encoder has no vector of, or not with their picture."""
    tables = [artifact.manifest.metadata for role, artifact in inputs.items() if role.startswith("table:")]
    return {f"embed {facts['name']}: {kind}": count for facts in tables for kind, count in facts["quarantine"].items()}


def _model_row(row: Mapping[str, Any]) -> ModelRow:
    def measure(metric: str) -> Measure:
        return Measure(row[metric], *row[f"{metric}_interval"])

    cold = measure("cold_recall@10") if "cold_recall@10" in row else None
    return ModelRow(row["label"], measure("recall@10"), measure("ndcg@10"), cold, row["seconds"], highlight=row["name"] == FUSED)


def _summary(rows: list[dict[str, Any]]) -> str:
    fused = next(row for row in rows if row["name"] == FUSED)
    rivals = [row for row in rows if row["name"] != FUSED]
    best = max(rivals, key=lambda row: row["ndcg@10"])
    text = f"The fused model reaches NDCG@10 {fused['ndcg@10']:.4f} over the whole catalogue; the best other model, {best['label']}, {best['ndcg@10']:.4f}."
    if "cold_recall@10" in fused:
        text += f" On items that training never saw its Recall@10 is {fused['cold_recall@10']:.4f}."
    return text


def _curves(inputs: Inputs) -> tuple[Curve, ...]:
    """Epochs with a validation only: every curve has as many values of each kind."""
    curves = []
    for role, name in (("backbone:warm", "SASRec (ID only)"), ("rank:warm", "fused")):
        history = [row for row in read_json(inputs[role].file("history.json")) if "validation" in row]
        curves.append(Curve(name, tuple(int(r["epoch"]) for r in history), tuple(r["loss"] for r in history), tuple(r["validation"] for r in history)))
    return tuple(curves)


def _popularity(evaluations: Mapping[str, Evaluation], data_split: Split, labels: Mapping[str, str]) -> PopularityRecall:
    masks = bucket_masks(data_split.test.targets, data_split.item_counts())
    recall = {labels[name]: tuple(e.where(mask).mean("recall@10") for mask in masks.values()) for name, e in evaluations.items()}
    return PopularityRecall(tuple(masks), tuple(int(mask.sum()) for mask in masks.values()), recall)


def _maps(tables: Mapping[str, EmbeddingTable], data: Ingested) -> tuple[ItemMap, ...]:
    genres = [categories[0] if categories else "none" for categories in data.catalog.categories()]
    maps = []
    for name, table in tables.items():
        values = table.aligned_to(data.catalog.items)
        rows = np.flatnonzero((values != 0).any(axis=1))
        if len(rows) >= 4:
            maps.append(ItemMap.of(f"{name}: {len(rows):,} items", map_2d(values[rows]), [genres[row] for row in rows]))
    return tuple(maps)


def _significance(evaluations: Mapping[str, Mapping[str, Evaluation]], labels: Mapping[str, str]) -> tuple[SignificanceRow, ...]:
    rows = []
    for problem, metric in (("warm", "ndcg@10"), ("cold", "recall@10")):
        if problem in evaluations and len(evaluations[problem][FUSED]):
            shown = metric.upper() if problem == "warm" else f"cold {metric.capitalize()}"
            for c in compare(evaluations[problem], FUSED, metric):
                difference = Measure(c.difference, c.low, c.high)
                rows.append(SignificanceRow(labels[c.model], labels[c.baseline], shown, difference, c.p_bootstrap, c.p_t, c.p_wilcoxon, c.holm))
    return tuple(rows)


def _stage_row(role: str, artifact: Artifact) -> StageRow:
    facts = artifact.manifest.metadata
    return StageRow(str(facts["step"]), artifact.key, f"{facts['stage_seconds']:.1f} s")


def _samples(ranker: FusedRanker, data_split: Split, data: Ingested) -> tuple[Sample, ...]:
    """Recommendations for a few users spread over the test cases, as the test saw them."""
    titles, cases = data.catalog.titles(), data_split.test
    item_nums = np.flatnonzero(ranker.scorable_items()).astype(np.int64)
    samples = []
    for row in np.linspace(0, len(cases) - 1, min(SAMPLE_USERS, len(cases))).astype(int).tolist():
        query = cases.queries().slice(row, row + 1)
        scores = np.array(ranker.score(query, item_nums))
        scores[0, np.isin(item_nums, cases.seen[row])] = -np.inf
        best = item_nums[top_k(scores, SAMPLE_ITEMS)[1][0]]
        final = ranker.score(query, best)[0]
        shares = {name: values[0] for name, values in ranker.shares(query, best).items()}
        recommended = tuple(
            Recommended(titles[item], float(final[i]), {name: float(values[i]) for name, values in shares.items()}, hit=bool(item == cases.targets[row]))
            for i, item in enumerate(best.tolist())
        )
        history = tuple(titles[item] for item in cases.inputs[row][-SAMPLE_HISTORY:].tolist())
        samples.append(Sample(data_split.users.ids[int(cases.user_nums[row])], history, recommended))
    return tuple(samples)
