import math

import numpy as np
import pytest

from recsys.errors import DataError
from recsys.evaluation.metrics import METRICS
from recsys.evaluation.multi_target import metrics_of_ranks


def test_by_hand():
    """Three relevant items at places 2, 3 and 9, judged at 5."""
    found = metrics_of_ranks(np.array([3, 9, 2]), 5)
    gain, ideal = 1 / math.log2(3) + 1 / math.log2(4), 1 + 1 / math.log2(3) + 1 / math.log2(4)
    expected = {"recall": 2 / 3, "ndcg": gain / ideal, "mrr": 1 / 2, "hit": 1, "precision": 2 / 5, "map": (1 / 2 + 2 / 3) / 3}
    assert found == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("rank", [1, 4, 5, 6, 100])
def test_with_one_target_all_equal_the_metrics_of_one_target(rank: int):
    single = {name: float(metric(np.array([rank - 1]), np.array([1]), 5)[0]) for name, metric in METRICS.items()}
    assert metrics_of_ranks(np.array([rank]), 5) == pytest.approx(single, abs=1e-15)


def test_agrees_with_ir_measures():
    ir = pytest.importorskip("ir_measures")
    generator = np.random.default_rng(0)
    ranks = {str(u): generator.permutation(30)[: generator.integers(1, 9)] + 1 for u in range(40)}
    qrels = [ir.Qrel(user, str(rank), 1) for user, places in ranks.items() for rank in places]
    run = [ir.ScoredDoc(user, str(rank), float(-rank)) for user in ranks for rank in range(1, 31)]
    measures = {"recall": ir.R, "ndcg": ir.nDCG, "mrr": ir.RR, "hit": ir.Success, "precision": ir.P, "map": ir.AP}
    assert set(measures) == set(METRICS)
    for k in (5, 10):
        ours = {user: metrics_of_ranks(places, k) for user, places in ranks.items()}
        for name, measure in measures.items():
            for value in ir.iter_calc([measure @ k], qrels, run):
                assert ours[value.query_id][name] == pytest.approx(value.value, abs=1e-9)


def test_nothing_relevant_is_nan_and_nonsense_an_error():
    assert all(math.isnan(value) for value in metrics_of_ranks(np.zeros(0, dtype=np.int64), 5).values())
    for ranks in ([0, 1], [2, 2]):
        with pytest.raises(DataError, match="distinct and count from 1"):
            metrics_of_ranks(np.array(ranks), 5)
    # Items that were not found may share a place beyond the list.
    assert metrics_of_ranks(np.array([1, 99, 99]), 5)["recall"] == pytest.approx(1 / 3)
