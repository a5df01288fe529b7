"""Reserved slots: the last few places of a list belong to items that training never saw.

The scores of a collaborative model and of a content model are not of one scale, so the two are not mixed: each ranks its own items,
and the share of the list decides. What the slots cost the known items is one rank at the border, and can be counted.
"""

from __future__ import annotations

import math

import numpy as np

from recsys.types import UNKNOWN_NUM, IntArray


def reserved_count(k: int, share: float) -> int:
    """Places of a list of `k`: ceil(share k). Raises ValueError: a share outside [0, 1].

    >>> reserved_count(10, 0.3), reserved_count(10, 0.01)
    (3, 1)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share of the list in [0, 1] is needed, got {share}")
    # 0.3 * 10 is a little more than 3.
    return math.ceil(round(share * k, 9))


def with_reserved_slots(known: IntArray, new: IntArray, k: int, share: float) -> IntArray:
    """int64 (B, k), best first: the first of `known`, then `reserved_count` of `new`. Either gives way where it has too few.

    known, new: int64 (B, m), (B, m'), best first, without an item in common, filled up with `UNKNOWN_NUM`.
    """
    reserved = reserved_count(k, share)
    merged = np.full((len(known), k), UNKNOWN_NUM, dtype=np.int64)
    for row, (first, second) in enumerate(zip(known, new, strict=True)):
        first, second = first[first != UNKNOWN_NUM], second[second != UNKNOWN_NUM]
        kept = first[: k - min(reserved, len(second))]
        places = [*kept, *second[: k - len(kept) if len(kept) < k - reserved else reserved]]
        merged[row, : len(places)] = places
    return merged
