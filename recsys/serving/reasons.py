"""Why an item was recommended, in items that the user knows."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.serving.recommender import Recommender
from recsys.types import IntArray

SHOWN, LATEST = 3, 200


def nearest_of_history(model: Recommender, history: IntArray, item_nums: IntArray) -> list[list[dict[str, Any]]]:
    """For each of `item_nums` the nearest items of the user's last 200 by cosine of the fused vectors, nearest first; equal ones by the later event."""
    known = history[-LATEST:][::-1]
    # Each once, the latest first.
    _, first = np.unique(known, return_index=True)
    known = known[np.sort(first)]
    known = known[model.state.scorable[known]]
    if not len(known) or not len(item_nums):
        return [[] for _ in item_nums]
    likeness = model.likeness(item_nums, known)
    best = np.argsort(-likeness, axis=1, kind="stable")[:, :SHOWN]
    ids, titles = model.catalog.items.ids, model.state.titles
    return [
        [{"item_id": ids[num], "title": titles[num], "likeness": value} for num, value in zip(known[row].tolist(), values[row].tolist(), strict=True)]
        for row, values in zip(best, likeness, strict=True)
    ]
