"""What the gate is given: figures of challenger and champion, user by user, from a contest or from two boards of one split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from pipelines import contest
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import read_json
from recsys.evaluation.gate import Evidence, Pair
from recsys.evaluation.metrics import MetricArray
from recsys.tracking import RegisteredVersion

FIGURES = "gate/gate_users.safetensors"
"""Kept with each version, so that the next one can be compared user by user."""
Figures = Mapping[str, MetricArray]


def champion_figures(file_of: Callable[[RegisteredVersion, str], Path | None], champion: RegisteredVersion | None) -> Figures | None:
    file = None if champion is None else file_of(champion, FIGURES)
    return None if file is None else load_file(file)


def saved_figures(evaluation: Artifact, path: Path) -> None:
    save_file({name: np.ascontiguousarray(values) for name, values in _own_figures(evaluation).items()}, path)


def gathered(evaluation: Artifact, split_digest: str, champion: RegisteredVersion | None, figures: Figures | None) -> Evidence:
    """evaluation: of a contest, which holds both; else of a board, compared with the champion's own figures where its split is the same."""
    if contest.is_contest(evaluation):
        warm, cold = contest.pairs(evaluation)
        return Evidence(warm=warm, cold=cold, incomparable=str(read_json(evaluation.file("contest.json"))["incomparable"]))
    if champion is None:
        return Evidence()
    if champion.tags.get("split_hash") != split_digest:
        return Evidence(incomparable="the champion was measured on another split; compare them and move the alias by hand")
    if figures is None:
        return Evidence(incomparable="the champion has no figures by user (it is of an older release); compare them and move the alias by hand")
    own = _own_figures(evaluation)
    pairs = {part: Pair(values, figures[part]) for part, values in own.items() if part in figures}
    return Evidence(warm=pairs["warm"], cold=next((pair for part, pair in pairs.items() if part != "warm"), None))


def _own_figures(evaluation: Artifact) -> dict[str, MetricArray]:
    """NDCG@10 by user of the model at hand. Cold figures of a board bear the key of their split: those of another are of other cases."""
    if contest.is_contest(evaluation):
        figures = load_file(evaluation.file(contest.FIGURES))
        return {part: figures[f"{part}_{contest.CHALLENGER}"] for part in ("warm", "cold")}
    per_user = load_file(evaluation.file("per_user.safetensors"))
    found = {"warm": per_user["warm/fused/ndcg@10"]}
    if "cold/fused/ndcg@10" in per_user:
        found[f"cold:{evaluation.manifest.inputs['split:cold'][:16]}"] = per_user["cold/fused/ndcg@10"]
    return found
