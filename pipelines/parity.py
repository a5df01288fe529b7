"""The parity proof: offline and served scores of the same users and items, through real HTTP requests."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import httpx
import numpy as np

from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError
from recsys.types import IntArray, Queries, Scorer


@dataclass(frozen=True)
class ParityProof:
    users: int
    items: int
    max_difference: float
    same_top_10: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def prove_parity(url: str, offline: Scorer, users: Vocabulary, items: Vocabulary, histories: Sequences, user_nums: IntArray, n_candidates: int) -> ParityProof:
    """Score `n_candidates` items for each user offline and by POST /v1/score.

    The candidates are drawn from the items that the model can score, anew for each user and without a seed to choose.

    Raises:
        ArtifactError: the service did not answer, or left out a score that the model has.
    """
    scorable = np.flatnonzero(offline.scorable_items())
    worst, same = 0.0, True
    with httpx.Client(base_url=url, timeout=30) as client:
        for user_num in user_nums.tolist():
            candidates = np.random.default_rng(user_num).choice(scorable, min(n_candidates, len(scorable)), replace=False)
            expected = offline.score(Queries(np.array([user_num]), [histories[user_num]]), candidates)[0]
            answer = client.post("/v1/score", json={"user_id": users.ids[user_num], "candidates": items.ids_of(candidates)})
            if answer.status_code != 200:
                raise ArtifactError(f"the service answered {answer.status_code} for user {users.ids[user_num]!r}: {answer.text[:300]}")
            served = [entry["score"] for entry in answer.json()["scores"]]
            if None in served:
                raise ArtifactError(f"the service gave no score for {items.ids[int(candidates[served.index(None)])]!r}, the model has one")
            worst = max(worst, float(np.abs(np.asarray(served) - expected).max()))
            same &= _top(np.asarray(served)) == _top(expected)
    return ParityProof(len(user_nums), n_candidates, worst, bool(same))


def _top(scores: np.ndarray[Any, Any]) -> list[int]:
    return [int(i) for i in np.argsort(-scores, kind="stable")[:10]]
