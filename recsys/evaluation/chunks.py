"""Scores of all cases over the same items, chunk by chunk in a few buffers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from recsys.data.sequences import Sequences
from recsys.data.split import Cases, Split
from recsys.data.vocabulary import Vocabulary
from recsys.errors import NonFiniteError, SpaceMismatchError
from recsys.types import FloatArray, IntArray, KnowsItems, Queries, Scorer, ScoresInto

BUFFER = 4_000_000
"""Bytes of scores of a chunk: what is read again after the product is still in the processor's cache."""
FEWEST, MOST = 32, 1024
"""Bounds of the rows of a chunk, whatever the size of the catalogue."""


def scored_chunks(
    scorer: Scorer, cases: Cases, item_nums: IntArray, *, chunk: int | None = None, users: Vocabulary | None = None, buffers: int = 1
) -> Iterator[tuple[IntArray, FloatArray]]:
    """(rows int64 (B,) of the cases, scores float32 (B, C)); each case comes once, short histories first, so that a
    sequence model pads little. Nothing comes when there are no columns. The caller may write into
    `scores`; the chunk that comes `buffers` later overwrites them.

    item_nums: int64 (C,), the columns.  chunk: rows at most; None fits `BUFFER`.  users: to name a user by user_id in errors.

    Raises:
        NonFiniteError: NaN or infinity; names the model, the user and the item.
    """
    model, columns = model_name(scorer), len(item_nums)
    if not columns:
        return
    if chunk is None:
        chunk = min(max(BUFFER // (4 * columns), FEWEST), MOST)
    ring = np.empty((buffers, min(chunk, len(cases)), columns), dtype=np.float32)
    order = np.argsort(cases.inputs.lengths, kind="stable").astype(np.int64)
    for number, start in enumerate(range(0, len(cases), chunk)):
        rows = order[start : start + chunk]
        scores = ring[number % buffers, : len(rows)]
        queries = Queries(cases.user_nums[rows], Sequences.of_rows([cases.inputs[row] for row in rows.tolist()]))
        if isinstance(scorer, ScoresInto):
            scorer.score_into(queries, item_nums, scores)
        else:
            found = scorer.score(queries, item_nums)
            if found.shape != scores.shape or found.dtype != scores.dtype:
                raise ValueError(f"{model} returned {found.dtype} scores of shape {found.shape}; float32 {scores.shape} is needed: (queries, items)")
            scores[...] = found
        _refuse_non_finite(scores, cases.user_nums[rows], item_nums, model, users)
        yield rows, scores


def refuse_other_items(scorer: Scorer, split: Split) -> None:
    """Raises SpaceMismatchError: the scorer's rows are other items than the split's, by number, or by id where it `KnowsItems`."""
    if scorer.n_items != split.n_items:
        raise SpaceMismatchError(f"{model_name(scorer)} was fitted on {scorer.n_items} items, the split has {split.n_items}: fit and evaluate on one split")
    known = scorer.item_digest if isinstance(scorer, KnowsItems) else None
    if known is not None and known != split.items.digest:
        raise SpaceMismatchError(
            f"{model_name(scorer)} was fitted on another vocabulary ({scorer.n_items} items, {known[:12]}) than that of the split {split.digest[:12]} "
            f"(as many items, {split.items.digest[:12]}): the same row is another item, or the order differs; fit and evaluate on one split"
        )


def model_name(scorer: Scorer) -> str:
    """Class name, and the scorer's own name where it has one."""
    own = getattr(scorer, "name", None)
    return f"{type(scorer).__name__} {own!r}" if isinstance(own, str) else type(scorer).__name__


def _refuse_non_finite(scores: FloatArray, user_nums: IntArray, item_nums: IntArray, model: str, users: Vocabulary | None) -> None:
    # One NaN or infinity spoils the sum of its row, and a sum needs no array of flags. Large finite scores may overflow it too.
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(~np.isfinite(scores.sum(axis=1)))
    bad = ~np.isfinite(scores[suspects])
    if bad.any():
        row, column = np.argwhere(bad)[0]
        user_num = int(user_nums[suspects[row]])
        named = f"user_num {user_num}" if users is None or user_num < 0 else f"user_num {user_num} (user_id {users.ids[user_num]!r})"
        raise NonFiniteError(
            f"{model} scored {scores[suspects[row], column]} for {named}, item_num {item_nums[column]} "
            f"({int(bad.sum())} such values in this chunk): scores of scorable items are finite"
        )
