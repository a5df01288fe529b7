import math

import numpy as np
import pytest
from scipy import stats

from recsys.data.split import Cases
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.significance import compare, holm, paired_bootstrap, paired_t, wilcoxon
from recsys.evaluation.slices import bucket_masks, popularity_slices, sliced
from recsys.testing.scorers import OracleScorer, RandomScorer

NONE = np.zeros(0, dtype=np.int64)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, math.nan, 0.5])[0] == 1.0
    assert math.isnan(holm([0.9, math.nan, 0.5])[1])


def test_equal_models_show_no_difference():
    zero = np.zeros(50)
    assert (paired_bootstrap(zero), paired_t(zero), wilcoxon(zero)) == (1.0, 1.0, 1.0)
    assert all(math.isnan(test(np.zeros(0))) for test in (paired_bootstrap, paired_t, wilcoxon))


def test_bootstrap_agrees_with_the_t_test():
    difference = np.random.default_rng(0).normal(0.11, 1.0, size=400)
    assert paired_bootstrap(difference) == pytest.approx(paired_t(difference), abs=0.02)
    assert paired_t(difference) == pytest.approx(stats.ttest_rel(difference, np.zeros(400)).pvalue)


def test_compare_pairs_the_same_cases():
    targets = [(3 * u) % 20 for u in range(80)]
    cases = Cases.of_rows([(u, NONE, NONE, t) for u, t in enumerate(targets)])
    models = {
        "oracle": evaluate(OracleScorer(20, dict(enumerate(targets))), cases),
        "random": evaluate(RandomScorer(20), cases),
        "other": evaluate(RandomScorer(20, 1), cases),
    }
    found = compare(models, "oracle", "ndcg@10")
    assert [c.baseline for c in found] == ["random", "other"]
    assert all(c.low < c.difference < c.high and c.holm < 0.01 and c.holm >= c.p_bootstrap for c in found)
    with pytest.raises(ValueError, match="different cases"):
        compare({**models, "random": models["random"].where(np.arange(80) < 79)}, "oracle", "ndcg@10")


def test_slices_are_disjoint_and_cover_all():
    counts = np.array([0, 1, 5, 6, 7, 8, 9, 100, 0])
    masks = popularity_slices(np.arange(9), counts)
    assert sum(mask.astype(int) for mask in masks.values()).tolist() == [1] * 9
    assert {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()} == {"cold": [0, 8], "few-shot": [1, 2], "tail": [3, 4, 5, 6], "head": [7]}
    buckets = bucket_masks(np.arange(9), counts, edges=(0, 5, 8))
    assert {name: int(mask.sum()) for name, mask in buckets.items()} == {"0": 2, "1–5": 2, "6–8": 3, "9+": 2}


def test_an_empty_slice_is_nan_not_an_error():
    cases = Cases.of_rows([(0, NONE, NONE, 1)])
    parts = sliced(evaluate(RandomScorer(3), cases), np.array([0, 3, 0]))
    assert parts["few-shot"].count == 1
    assert parts["head"].count == 0
    assert math.isnan(parts["head"].mean("ndcg@10"))
