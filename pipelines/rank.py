"""Stages `backbone` and `rank`: a split and any number of embedding tables -> a fitted ranker.

Without tables it is the ID-only SASRec (the CF backbone); with tables, the fused model. One code path, so that the two
differ in their signals and in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines import embed, split
from pipelines.stage import Inputs, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import write_json
from recsys.config import Config
from recsys.evaluation.evaluate import evaluate
from recsys.heads.fusion import FusedRanker, FusionConfig, fit_ranker
from recsys.types import Scorer

VERSION = 2


class RankConfig(Config):
    model: FusionConfig = FusionConfig()
    seed: int = 0


def run(config: RankConfig, inputs: Inputs, folder: Path, surroundings: Surroundings, *, start: Callable[[], FusedRanker] | None = None) -> Mapping[str, Any]:
    """start: the ranker that this training begins as; then the step's `raw_digest` says which."""
    data_split = split.load(inputs["split"])
    tables = {artifact.manifest.metadata["name"]: embed.load(artifact) for role, artifact in inputs.items() if role.startswith("table:")}

    def validation_ndcg(scorer: Scorer) -> float:
        return evaluate(scorer, data_split.validation, ks=(10,), metrics=("ndcg",), lists=False, split=data_split).mean("ndcg@10")

    label = f"train {'fused' if tables else 'ID-only'} ({data_split.protocol.replace('_', ' ')})"
    with surroundings.reporter.task(label, "epochs") as advance:
        fitted = fit_ranker(
            config.model,
            data_split,
            tables,
            seed=config.seed,
            checkpoint=surroundings.scratch,
            start=start() if start else None,
            validate=validation_ndcg,
            progress=lambda done, total, values: advance(done, total, " ".join(f"{k} {v:.4f}" for k, v in values.items() if k != "epoch")),
        )
    fitted.ranker.save(folder)
    write_json(folder / "history.json", fitted.history)
    return {
        "split_hash": data_split.digest,
        "spaces": dict(fitted.ranker.spaces),
        "epochs": len(fitted.history),
        "train_seconds": round(fitted.seconds, 3),
        "seed": config.seed,
    }


def load(artifact: Artifact) -> FusedRanker:
    return FusedRanker.load(artifact.path)
