"""Targets among a few candidates, by scores that are there already: of models that cost too much to score a catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recsys.data.split import Cases
from recsys.errors import NonFiniteError
from recsys.evaluation.evaluate import Evaluation
from recsys.evaluation.metrics import METRICS


def evaluate_offered(model: str, cases: Cases, scores: npt.NDArray[np.floating], *, ks: Sequence[int] = (1,)) -> Evaluation:
    """scores: float (N, 1 + M), the target's in column 0. Ties count by expectation, as in `evaluate`.

    Raises:
        NonFiniteError: NaN or infinity.
    """
    if scores.shape[0] != len(cases):
        raise ValueError(f"{len(cases)} cases, but scores of {scores.shape[0]}")
    if not np.isfinite(scores).all():
        raise NonFiniteError(f"{model} scored NaN or infinity for {int((~np.isfinite(scores)).any(axis=1).sum())} of {len(cases)} cases")
    better, tied = (scores > scores[:, :1]).sum(axis=1).astype(np.int64), (scores == scores[:, :1]).sum(axis=1).astype(np.int64)
    per_user = {f"{name}@{k}": metric(better, tied, k) for k in ks for name, metric in METRICS.items()}
    return Evaluation(model, cases.user_nums, cases.targets, per_user, scores.shape[1], better, tied)
