"""Looking around in a model: its items, users and histories. Plain values, for the page and for curious callers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from recsys.serving.recommender import Recommender
from recsys.types import IntArray

SHOWN_HISTORY = 200


def found_items(model: Recommender, query: str, limit: int) -> list[dict[str, Any]]:
    """Items whose title holds `query`, in any case; the most popular first. All items for ""."""
    state = model.state
    nums = np.arange(len(state.titles))
    if query:
        nums = state.folded_titles.str.contains(query.casefold(), literal=True).arg_true().to_numpy().astype(np.int64)
    popularity = state.popularity[nums]
    # New items have no popularity: the newest of equally popular ones come first.
    best = np.lexsort((-nums, -popularity))[:limit]
    return described(model, nums[best])


def described(model: Recommender, item_nums: IntArray) -> list[dict[str, Any]]:
    state = model.state
    table, ids, bundled = state.catalog.table, state.catalog.items.ids, state.index.n_items
    categories: Sequence[list[str] | None] = table["categories"][item_nums].to_list() if "categories" in table.columns else [[]] * len(item_nums)
    return [
        {"item_id": ids[num], "title": state.titles[num], "categories": names or [], "new": num >= bundled}
        for num, names in zip(item_nums.tolist(), categories, strict=True)
    ]


def found_users(model: Recommender, prefix: str, limit: int) -> list[str]:
    """user_ids of publishing time that begin with `prefix`."""
    return list(islice((user_id for user_id in model.user_ids if user_id.startswith(prefix)), limit))


def shown_history(model: Recommender, item_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The last 200 that the model knows, oldest first."""
    return described(model, model.history_nums(item_ids)[-SHOWN_HISTORY:])
