"""Stage `evaluate`: every model on the same splits, the whole catalogue ranked, warm and cold -> board and report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from safetensors.numpy import save_file

from pipelines import embed, graph, rank, split
from pipelines.stage import Inputs, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import write_json
from recsys.config import Config
from recsys.data.split import Split
from recsys.embeddings.table import EmbeddingTable
from recsys.evaluation.evaluate import Evaluation, evaluate
from recsys.models.ease import Ease, EaseConfig
from recsys.models.itemknn import ItemKNN, ItemKNNConfig
from recsys.models.popularity import Popularity
from recsys.models.text_nearest import TextNearest
from recsys.types import Scorer

VERSION = 2
FUSED = "fused"
ID_ONLY = "sasrec"
HEADLINE = 10
"""The cutoff of the board; always evaluated."""


class EvaluateConfig(Config):
    cutoffs: tuple[Annotated[int, Field(ge=1)], ...] = (5, 10, 20)
    """Ranks at which the metrics are cut."""
    itemknn: ItemKNNConfig = ItemKNNConfig()
    ease: EaseConfig = EaseConfig()
    bootstrap_seed: int = 0


@dataclass(frozen=True)
class Contestant:
    """A model by name, fitted on the split of one board. seconds: training or fitting time."""

    name: str
    label: str
    scorer: Scorer
    seconds: float


def run(config: EvaluateConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    from pipelines.report import write

    tables = {a.manifest.metadata["name"]: embed.load(a) for role, a in inputs.items() if role.startswith("table:")}
    boards = [role.partition(":")[2] for role in inputs if role.startswith("split:")]
    evaluations: dict[str, dict[str, Evaluation]] = {}
    seconds: dict[str, float] = {}
    labels: dict[str, str] = {}
    with surroundings.reporter.task("evaluate", "models") as advance:
        done = 0
        for board in boards:
            data_split = split.load(inputs[f"split:{board}"])
            contestants = _contestants(config, data_split, tables, inputs, board)
            for make in contestants:
                contestant = make()
                labels[contestant.name] = contestant.label
                if board == "warm":
                    seconds[contestant.name] = contestant.seconds
                for name, cases, candidates in _problems(data_split, board):
                    evaluations.setdefault(name, {})[contestant.name] = evaluate(
                        contestant.scorer, cases, ks=sorted({HEADLINE, *config.cutoffs}), candidates=candidates, split=data_split
                    )
                done += 1
                advance(done, len(boards) * len(contestants), contestant.label)
    rows = [_board_row(name, labels[name], seconds[name], evaluations, config) for name in evaluations["warm"]]
    write_json(folder / "board.json", rows)
    per_user = {
        f"{problem}/{name}/{metric}": np.asarray(values, dtype=np.float64)
        for problem, models in evaluations.items()
        for name, e in models.items()
        for metric, values in e.per_user.items()
    }
    save_file(per_user, folder / "per_user.safetensors")
    write(folder, inputs, evaluations, rows, labels, tables)
    facts: dict[str, Any] = {"split_hash": inputs["split:warm"].manifest.metadata["split_hash"], "models": len(rows)}
    fused = next(row for row in rows if row["name"] == FUSED)
    return {**facts, **{f"fused_{metric.replace('@', '_at_')}": round(fused[metric], 6) for metric in ("recall@10", "ndcg@10")}}


def _problems(data_split: Split, board: str) -> list[tuple[str, Any, Any]]:
    """(name, cases, candidates): warm test cases; on the cold split the cold cases among all items and among cold items."""
    if board == "warm":
        return [("warm", data_split.test, None)]
    return [("cold", data_split.cold, None), ("cold_only", data_split.cold, data_split.held_out), ("cold_split_warm", data_split.test, None)]


def _contestants(config: EvaluateConfig, data_split: Split, tables: Mapping[str, EmbeddingTable], inputs: Inputs, board: str) -> list[Callable[[], Contestant]]:
    def fitted(name: str, label: str, fit: Callable[[], Scorer]) -> Callable[[], Contestant]:
        def make() -> Contestant:
            started = time.monotonic()
            scorer = fit()
            return Contestant(name, label, scorer, time.monotonic() - started)

        return make

    def trained(name: str, label: str, role: str) -> Callable[[], Contestant]:
        return lambda: Contestant(name, label, rank.load(inputs[role]), inputs[role].manifest.metadata["train_seconds"])

    def nearest(name: str, table: EmbeddingTable) -> Callable[[], Contestant]:
        return fitted(
            f"nearest-{name}", f"text nearest ({name})", lambda: TextNearest(table.aligned_to(data_split.items), name, centre_on=~data_split.held_out)
        )

    def of_graph(name: str, artifact: Artifact) -> Callable[[], Contestant]:
        return lambda: Contestant(f"graph-{name}", f"graph ({name})", graph.load_scorer(artifact), artifact.manifest.metadata["train_seconds"])

    graphs = {role.split(":")[1]: artifact for role, artifact in inputs.items() if role.startswith("graph:") and role.endswith(f":{board}")}
    return [
        fitted("popularity", "popularity", lambda: Popularity.fit(data_split)),
        fitted("itemknn", "ItemKNN", lambda: ItemKNN.fit(config.itemknn, data_split)),
        fitted("ease", "EASE", lambda: Ease.fit(config.ease, data_split)),
        *(nearest(name, table) for name, table in tables.items()),
        *(of_graph(name, artifact) for name, artifact in graphs.items()),
        trained(ID_ONLY, "SASRec (ID only)", f"backbone:{board}"),
        trained(FUSED, "fused (" + " + ".join(("ID", *tables, *graphs)) + ")", f"rank:{board}"),
    ]


def _board_row(name: str, label: str, seconds: float, evaluations: Mapping[str, Mapping[str, Evaluation]], config: EvaluateConfig) -> dict[str, Any]:
    warm = evaluations["warm"][name]
    row: dict[str, Any] = {"name": name, "label": label, "seconds": round(seconds, 3), "cases": len(warm.per_user["recall@10"])}
    for metric in warm.per_user:
        row[metric] = warm.mean(metric)
        row[f"{metric}_interval"] = list(warm.interval(metric, seed=config.bootstrap_seed))
    for problem in ("cold", "cold_only", "cold_split_warm"):
        if problem in evaluations and len(evaluations[problem][name].per_user["recall@10"]):
            for metric in ("recall@10", "ndcg@10"):
                row[f"{problem}_{metric}"] = evaluations[problem][name].mean(metric)
                row[f"{problem}_{metric}_interval"] = list(evaluations[problem][name].interval(metric, seed=config.bootstrap_seed))
    return row
