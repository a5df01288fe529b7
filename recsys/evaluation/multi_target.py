"""Ranking metrics of users with several relevant items, such as those of a global temporal split. No ties: the ranks are
places in one list. With one relevant item each equals its namesake in `evaluation.metrics`."""

from __future__ import annotations

import numpy as np

from recsys.errors import DataError
from recsys.evaluation.metrics import METRICS
from recsys.types import IntArray


def metrics_of_ranks(ranks: IntArray, k: int) -> dict[str, float]:
    """All of `METRICS` at k for one user; NaN without relevant items.

    ranks: int64 (R,), the place of each relevant item from 1, in any order; beyond k (say, above n_items) where it was not found.

    recall: found / R.  precision: found / k.  hit: anything found.  mrr: 1 / first place.  ndcg: sum of 1 / log2(place + 1)
    over that of the ideal list of min(R, k) (Järvelin and Kekäläinen, 2002).  map: mean over the R items of the precision
    at their places, 0 for those not found (trec_eval's map_cut).

    Raises:
        DataError: two items at one place, or a place below 1.
    """
    if k < 1:
        raise ValueError(f"the cutoff is positive, got {k}")
    places = np.sort(ranks)
    if len(places) and (places[0] < 1 or len(np.unique(places[places <= k])) < (places <= k).sum()):
        raise DataError(f"ranks are distinct and count from 1, got {ranks.tolist()[:20]}")
    if not len(places):
        return dict.fromkeys(METRICS, float("nan"))
    found = places[places <= k]
    ideal = 1.0 / np.log2(np.arange(2, min(len(places), k) + 2))
    return {
        "recall": len(found) / len(places),
        "ndcg": float((1.0 / np.log2(found + 1)).sum() / ideal.sum()),
        "mrr": float(1.0 / found[0]) if len(found) else 0.0,
        "hit": float(len(found) > 0),
        "precision": len(found) / k,
        "map": float((np.arange(1, len(found) + 1) / found).sum() / len(places)),
    }
