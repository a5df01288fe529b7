"""How good is a table of item embeddings, by itself? Nearest neighbours, no training.

Two questions. Item to item: is what comes next near to what came last? Each case asks with the last item before its target,
so that a hit is a neighbour that co-occurs in *later* interactions than any that were trained on. Cold items: does the
nearest to the mean of a history find the item that training never saw (split `held_out_items`)?

Cosines of the vectors as they are: where centring or whitening helps, it belongs to the embedding and its space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys.data.sequences import Sequences
from recsys.data.split import Cases, Split
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import DataError
from recsys.evaluation.evaluate import Evaluation, evaluate
from recsys.evaluation.metrics import MetricArray, expected_mrr
from recsys.models.text_nearest import TextNearest
from recsys.rng import numpy_generator
from recsys.types import BoolArray, FloatArray, IntArray

CUTOFF = 10
METRICS = ("recall", "ndcg", "mrr")
ITEM_TO_ITEM, COLD, COLD_ONLY = "item_to_item", "cold", "cold_only"


@dataclass(frozen=True)
class ItemEmbeddingQuality:
    """evaluations: "item_to_item" (test cases), and where the split holds items out "cold" (all items ranked) and "cold_only"
    (cold items ranked), each with recall@10, ndcg@10 and mrr@10 a case, by which models are compared.

    queries: int64 (N,), the item that asks in each item-to-item case.
    """

    evaluations: Mapping[str, Evaluation]
    queries: IntArray

    def over_items(self, metric: str) -> MetricArray:
        """float64 (Q,): the metric's mean over the cases of each item that asks, by ascending item_num. A bestseller that
        many users had last counts once."""
        return mean_by(self.queries, self.evaluations[ITEM_TO_ITEM].values(metric))

    def values(self) -> dict[str, MetricArray]:
        """ "cold recall@10" -> float64 (N,), and "over items recall@10" -> float64 (Q,): what paired tests compare."""
        found = {f"{name} {metric}": values for name, e in self.evaluations.items() for metric, values in e.per_user.items()}
        return found | {f"over items {metric}": self.over_items(metric) for metric in self.evaluations[ITEM_TO_ITEM].per_user}


def measure(table: EmbeddingTable, split: Split) -> ItemEmbeddingQuality:
    """Raises:
    UnknownIdError: the table does not cover the items of the split.  DataError: no case to ask.
    """
    scorer = nearest(table.aligned_to(split.items), table.space.model)
    asked = asking_with_the_last(split.test)
    if not len(asked):
        raise DataError("no test case has an item before its target: there is nothing to ask")
    found = {ITEM_TO_ITEM: evaluate(scorer, asked, metrics=METRICS, ks=(CUTOFF,), lists=False)}
    if len(split.cold):
        found[COLD] = evaluate(scorer, split.cold, metrics=METRICS, ks=(CUTOFF,), lists=False)
        found[COLD_ONLY] = evaluate(scorer, split.cold, metrics=METRICS, ks=(CUTOFF,), lists=False, candidates=split.held_out)
    return ItemEmbeddingQuality(found, asked.inputs.item_nums)


def nearest(values: FloatArray, name: str) -> TextNearest:
    """A scorer by cosine with the mean of the history's unit vectors; nothing is centred. values: float32 (n_items, d)."""
    return TextNearest(values, name, centre_on=np.zeros(len(values), dtype=np.bool_))


def asking_with_the_last(cases: Cases) -> Cases:
    """Each case with the last item of its input alone as input, and nothing but that masked. Cases without an input, and
    those whose target is that very item, are left out."""
    ends = cases.inputs.offsets[1:]
    asked = np.flatnonzero(cases.inputs.lengths > 0)
    queries = cases.inputs.item_nums[ends[asked] - 1]
    asked, queries = asked[queries != cases.targets[asked]], queries[queries != cases.targets[asked]]
    single = Sequences(np.arange(len(asked) + 1, dtype=np.int64), queries)
    return Cases(cases.user_nums[asked], single, single, cases.targets[asked])


def mean_by(groups: IntArray, values: MetricArray) -> MetricArray:
    """float64 (G,): mean of the values of each group, by ascending group."""
    _, rows = np.unique(groups, return_inverse=True)
    return np.bincount(rows, values) / np.bincount(rows)


class RetrievalSample:
    """Item-to-item retrieval on a seeded sample of the validation cases, among the items that these cases hold: what stops a
    fine-tuning, at a cost that does not grow with the catalogue. The test cases are not read.

    among: bool (n_items,): cases of two such items alone (those with a vector); None is all.
    items: int64 (m,) item_nums, ascending.

    Raises:
        DataError: no such case.
    """

    def __init__(self, split: Split, cases: int, seed: int, among: BoolArray | None = None) -> None:
        asked = asking_with_the_last(split.validation)
        usable = np.arange(len(asked)) if among is None else np.flatnonzero(among[asked.inputs.item_nums] & among[asked.targets])
        if not len(usable):
            raise DataError("no validation case has an item with a vector before a target with one: there is nothing to stop by")
        chosen = np.sort(numpy_generator(seed, "retrieval sample").permutation(usable)[:cases])
        queries, targets = asked.inputs.item_nums[chosen], asked.targets[chosen]
        self.items: IntArray = np.union1d(queries, targets)
        single = Sequences(np.arange(len(chosen) + 1, dtype=np.int64), np.searchsorted(self.items, queries).astype(np.int64))
        self._cases = Cases(asked.user_nums[chosen], single, single, np.searchsorted(self.items, targets).astype(np.int64))

    def measure(self, vectors: FloatArray) -> float:
        """Mean reciprocal rank, uncut. vectors: float32 (m, d) of `items`."""
        found = evaluate(nearest(vectors, "sample"), self._cases, metrics=("mrr",), ks=(1,), lists=False)
        return float(expected_mrr(found.better, found.tied, len(self.items)).mean())
