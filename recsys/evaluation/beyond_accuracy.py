"""What the recommended lists are like, apart from being right.

lists: int64 (N, k) item_num, best first, `UNKNOWN_NUM` where a list is shorter (`Evaluation.lists[:, :k]`). Without
anything recommended every figure is NaN.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Sequences
from recsys.errors import NonFiniteError, SpaceMismatchError
from recsys.evaluation.calibration import CategoryShares, miscalibration
from recsys.types import UNKNOWN_NUM, FloatArray, IntArray

CHUNK = 1024
"""Lists whose vectors are held at once."""


def beyond_accuracy(
    lists: IntArray,
    k: int,
    *,
    n_candidates: int,
    histories: Sequences,
    item_counts: IntArray,
    vectors: FloatArray | None = None,
    shares: CategoryShares | None = None,
) -> dict[str, float]:
    """All figures of the first k of each list, such as "gini@10"; diversity needs vectors and miscalibration categories.

    Raises:
        ValueError: the lists are shorter than k.
    """
    if lists.shape[1] < k:
        raise ValueError(f"lists of {lists.shape[1]} items cannot be judged at {k}: evaluate with a cutoff of {k} or more")
    first = lists[:, :k]
    figures = {
        f"coverage@{k}": catalogue_coverage(first, n_candidates),
        f"novelty@{k}": novelty(first, item_counts),
        f"popularity_lift@{k}": popularity_lift(first, histories, item_counts),
        f"gini@{k}": gini(first, len(item_counts)),
    }
    if vectors is not None:
        figures[f"diversity@{k}"] = intra_list_diversity(first, vectors)
    if shares is not None:
        known = miscalibration(first, histories, shares)
        known = known[~np.isnan(known)]
        figures[f"miscalibration@{k}"] = float(known.mean()) if len(known) else float("nan")
    return figures


def catalogue_coverage(lists: IntArray, n_candidates: int) -> float:
    """Share of the candidates that stand in at least one list (Ge, Delgado-Battenfeld and Jannach, RecSys 2010)."""
    shown = lists[lists != UNKNOWN_NUM]
    return len(np.unique(shown)) / n_candidates if len(lists) and n_candidates else float("nan")


def novelty(lists: IntArray, item_counts: IntArray) -> float:
    """Mean self-information -log2 p(i) in bits over all recommended items; p(i) is the item's share of the training
    interactions (Zhou et al., PNAS 2010; Vargas and Castells, RecSys 2011). An item without any counts as seen once, for
    its self-information would be infinite.

    item_counts: int64 (n_items,), training interactions.
    """
    shown = _shown(lists, item_counts)
    if not len(shown) or not item_counts.sum():
        return float("nan")
    return float(-np.log2(np.maximum(item_counts[shown], 1) / item_counts.sum()).mean())


def popularity_lift(lists: IntArray, histories: Sequences, item_counts: IntArray) -> float:
    """(GAP of the lists - GAP of the histories) / GAP of the histories, GAP being the mean over users of the mean training
    popularity of their items (Abdollahpouri et al., "The unfairness of popularity bias in recommendation", RMSE 2019).
    0: as popular as what the users read; 1: twice as popular. Users without history or list are left out of both.

    histories: N rows aligned with the lists.  item_counts: int64 (n_items,), training interactions.
    """
    if len(lists) != len(histories):
        raise ValueError(f"{len(lists)} lists but {len(histories)} histories")
    _shown(lists, item_counts)
    present = lists != UNKNOWN_NUM
    lengths, shown = histories.lengths, present.sum(axis=1)
    both = (lengths > 0) & (shown > 0)
    read = np.bincount(histories.row_nums(), weights=item_counts[histories.item_nums], minlength=len(lists))
    recommended = np.where(present, item_counts[lists], 0).sum(axis=1)
    of_histories = (read[both] / lengths[both]).sum()
    return float((recommended[both] / shown[both]).sum() / of_histories - 1.0) if of_histories else float("nan")


def gini(lists: IntArray, n_items: int) -> float:
    """Gini index of how often each item of the catalogue is recommended: sum over i of (2i - n - 1) x_i / (n sum x), counts
    x ascending, i from 1 (Fleder and Hosanagar, Management Science 2009). 0: all equally often; (n - 1) / n: one item alone."""
    shown = lists[lists != UNKNOWN_NUM]
    if not len(shown):
        return float("nan")
    counts = np.sort(np.bincount(shown, minlength=n_items)).astype(np.float64)
    places = np.arange(1, n_items + 1)
    return float(((2 * places - n_items - 1) * counts).sum() / (n_items * counts.sum()))


def intra_list_diversity(lists: IntArray, vectors: FloatArray) -> float:
    """Mean over users of the mean of 1 - cosine over the pairs of their list (Smyth and McClave, ICCBR 2001). Items
    without a vector (a zero row) are left out, then lists of fewer than two items.

    vectors: float (n_items, d), row r is item_num r.

    Raises:
        NonFiniteError: NaN or infinity in the vector of a recommended item.
    """
    total, count = 0.0, 0
    for start in range(0, len(lists), CHUNK):
        part = lists[start : start + CHUNK]
        _shown(part, vectors)
        taken: npt.NDArray[np.float64] = np.where((part != UNKNOWN_NUM)[..., None], vectors[part], 0.0).astype(np.float64)
        norms = np.linalg.norm(taken, axis=2)
        if not np.isfinite(norms).all():
            raise NonFiniteError(f"the vector of item_num {part[~np.isfinite(norms)][0]} holds NaN or infinity")
        with_vector = norms > 0
        unit = taken / np.where(with_vector, norms, 1.0)[..., None]
        n = with_vector.sum(axis=1)
        pairs = n * (n - 1) / 2
        # The square of a sum holds every pair twice and each item with itself.
        cosines = ((unit.sum(axis=1) ** 2).sum(axis=1) - n) / 2
        total += float((1.0 - cosines[pairs > 0] / pairs[pairs > 0]).sum())
        count += int((pairs > 0).sum())
    return total / count if count else float("nan")


def _shown(lists: IntArray, table: npt.NDArray[np.generic]) -> IntArray:
    """The recommended item_nums, one after another; `table` has a row an item."""
    shown: IntArray = lists[lists != UNKNOWN_NUM]
    if len(shown) and shown.max() >= len(table):
        raise SpaceMismatchError(f"the lists hold item_num {shown.max()}, the table has {len(table)} rows: take both from one split")
    return shown
