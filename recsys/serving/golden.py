"""Golden requests: what a model answered when it was published, and must answer wherever it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from recsys.data.sequences import Sequences
from recsys.errors import ArtifactError
from recsys.types import BoolArray, FloatArray, IntArray, Queries

REQUESTS, CANDIDATES = 8, 50
TOLERANCE = 1e-4
"""Largest difference, relative to the greatest score, between two machines' arithmetic."""


class _Model(Protocol):
    def scorable_items(self) -> BoolArray: ...
    def represent(self, queries: Queries) -> FloatArray: ...
    def items(self) -> FloatArray: ...


@dataclass(frozen=True)
class Golden:
    """history, candidates: item_nums. scores: of the candidates."""

    history: tuple[int, ...]
    candidates: tuple[int, ...]
    scores: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return {"history": list(self.history), "candidates": list(self.candidates), "scores": list(self.scores)}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Self:
        return cls(tuple(values["history"]), tuple(values["candidates"]), tuple(values["scores"]))

    def check(self, ranker: _Model) -> None:
        """Raises ArtifactError: the model answers something else."""
        found = _scores(ranker, np.array(self.history, dtype=np.int64), np.array(self.candidates, dtype=np.int64))
        expected = np.array(self.scores, dtype=np.float32)
        limit = TOLERANCE * max(1.0, float(np.abs(expected).max(initial=0.0)))
        worst = float(np.abs(found - expected).max(initial=0.0))
        # Written so that a NaN fails too.
        if not worst <= limit:
            raise ArtifactError(f"a golden request of {len(self.candidates)} candidates is answered {worst:.3g} off what was published (limit {limit:.3g})")


def golden_requests(ranker: _Model, histories: Sequences) -> list[Golden]:
    """Users at equal distances and one without a history, each with candidates at equal distances over the catalogue."""
    scorable = np.flatnonzero(ranker.scorable_items())
    if not len(scorable):
        return []
    candidates = scorable[np.linspace(0, len(scorable) - 1, min(CANDIDATES, len(scorable))).astype(np.int64)]
    rows = np.linspace(0, len(histories) - 1, min(REQUESTS, len(histories))).astype(np.int64).tolist() if len(histories) else []
    chosen = [np.zeros(0, dtype=np.int64), *(histories[row] for row in rows)]
    return [Golden(tuple(h.tolist()), tuple(candidates.tolist()), tuple(_scores(ranker, h, candidates).tolist())) for h in chosen]


def _scores(ranker: _Model, history: IntArray, candidates: IntArray) -> FloatArray:
    """float32 (C,)."""
    return np.asarray(ranker.represent(Queries.of_history(history))[0] @ ranker.items()[candidates].T, dtype=np.float32)
