import math

import numpy as np
import pytest
from scipy import stats

from recsys.data.split import Cases
from recsys.errors import ConfigError
from recsys.evaluation.bootstrap import percentile_interval, resampled_means
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.significance import (
    cohen_dz,
    compare,
    compare_values,
    holm,
    mean_over_seeds,
    paired_bootstrap,
    paired_t,
    spread_over_seeds,
    wilcoxon,
)
from recsys.evaluation.slices import NO_CATEGORY, bucket_masks, category_slices, history_slices, parts_of, popularity_slices, sliced
from recsys.rng import numpy_generator
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


def test_resampled_means_are_those_of_the_drawn_values(monkeypatch: pytest.MonkeyPatch):
    values = np.random.default_rng(1).normal(size=(13, 3))
    drawn = numpy_generator(4, "evaluation", "bootstrap").integers(0, 13, size=(50, 13))
    expected = values[drawn].mean(axis=1)
    np.testing.assert_allclose(resampled_means(values, 4, 50), expected, atol=1e-15)
    np.testing.assert_allclose(resampled_means(values[:, 1], 4, 50), expected[:, 1], atol=1e-15)
    assert np.isnan(resampled_means(values[:0], 4, 50)).all() and resampled_means(values[:0], 4, 50).shape == (50, 3)
    monkeypatch.setattr("recsys.evaluation.bootstrap.BLOCK", 40)
    np.testing.assert_allclose(resampled_means(values, 4, 50), expected, atol=1e-15)
    assert percentile_interval(values[:, 1], 4, resamples=50) == pytest.approx(tuple(np.quantile(expected[:, 1], (0.025, 0.975))))


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


def test_effect_and_shares_by_hand():
    """Differences 1, 1, 0, -1, 1: mean 0.4, sample variance (3 * 0.36 + 0.16 + 1.96) / 4 = 0.8."""
    found = compare_values({"a": np.array([1.0, 1, 1, 0, 1]), "b": np.array([0.0, 0, 1, 1, 0])}, "a", "hit@1")[0]
    assert found.effect == pytest.approx(0.4 / math.sqrt(0.8))
    assert (found.better, found.worse, found.equal) == (0.6, 0.2, 0.2)
    assert found.p_t == pytest.approx(stats.ttest_rel([1, 1, 1, 0, 1], [0, 0, 1, 1, 0]).pvalue)
    assert [cohen_dz(np.array(d)) for d in ([0.0, 0.0], [2.0, 2.0], [-2.0, -2.0])] == [0, math.inf, -math.inf]
    assert math.isnan(cohen_dz(np.ones(1)))


def test_holm_corrects_each_test_over_the_table():
    generator = np.random.default_rng(0)
    values = {name: generator.normal(shift, 1, 60) for name, shift in (("own", 0.4), ("a", 0), ("b", 0.2), ("c", 0.35))}
    found = compare_values(values, "own", "x@1", resamples=500)
    assert [c.baseline for c in found] == ["a", "b", "c"]
    for corrected, test in (("holm", "p_bootstrap"), ("holm_t", "p_t"), ("holm_wilcoxon", "p_wilcoxon")):
        assert [getattr(c, corrected) for c in found] == holm([getattr(c, test) for c in found])
    assert found[0].p_bootstrap == paired_bootstrap(values["own"] - values["a"], resamples=500)


def test_nothing_to_compare_is_nan_and_an_unknown_name_an_error():
    nothing = compare_values({"a": np.zeros(0), "b": np.zeros(0)}, "a", "x@1")[0]
    numbers = {name: value for name, value in vars(nothing).items() if isinstance(value, float)}
    assert len(numbers) == 13
    assert all(math.isnan(value) for value in numbers.values())
    evaluation = evaluate(RandomScorer(3), Cases.of_rows([(0, NONE, NONE, 1)]))
    with pytest.raises(ConfigError, match="no model 'c'; evaluated were: a, b"):
        compare({"a": evaluation, "b": evaluation}, "c", "ndcg@10")
    with pytest.raises(ConfigError, match="no metric 'ndcg@7'; evaluated were: recall@5"):
        compare({"a": evaluation, "b": evaluation}, "a", "ndcg@7")
    assert compare({"a": evaluation}, "a", "ndcg@10") == []


def test_seeds_are_averaged_before_the_test():
    targets = [u % 20 for u in range(40)]
    cases = Cases.of_rows([(u, NONE, NONE, t) for u, t in enumerate(targets)])
    oracle, runs = evaluate(OracleScorer(20, dict(enumerate(targets))), cases), [evaluate(RandomScorer(20, seed), cases) for seed in range(3)]
    mean = mean_over_seeds(runs, "ndcg@10")
    np.testing.assert_allclose(mean, (runs[0].values("ndcg@10") + runs[1].values("ndcg@10") + runs[2].values("ndcg@10")) / 3)
    found = compare({"oracle": oracle, "random": runs}, "oracle", "ndcg@10")[0]
    assert (found.count, found.difference) == (40, pytest.approx(1 - mean.mean()))
    spread = spread_over_seeds(runs, "ndcg@10")
    means = [run.mean("ndcg@10") for run in runs]
    assert (spread.mean, spread.deviation, spread.seeds) == (pytest.approx(sum(means) / 3), pytest.approx(np.std(means, ddof=1)), 3)
    assert math.isnan(spread_over_seeds(runs[:1], "ndcg@10").deviation)
    with pytest.raises(ValueError, match="different cases"):
        mean_over_seeds([runs[0], runs[1].where(np.arange(40) < 39)], "ndcg@10")


def test_slices_by_history_are_disjoint_and_cover_all():
    masks = history_slices(np.array([0, 1, 5, 6, 20, 21, 51, 999]))
    assert sum(mask.astype(int) for mask in masks.values()).tolist() == [1] * 8
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"0": 1, "1–5": 2, "6–10": 1, "11–20": 1, "21–50": 1, "51+": 2}


def test_slices_by_category_overlap_where_a_target_has_several():
    masks = category_slices(np.array([0, 1, 2, 0]), [["b", "a"], ["a"], [], ["never a target"]])
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "a": [True, True, False, True],
        "b": [True, False, False, True],
        "never a target": [False] * 4,
        NO_CATEGORY: [False, False, True, False],
    }
    evaluation = evaluate(RandomScorer(4), Cases.of_rows([(u, NONE, NONE, t) for u, t in enumerate([0, 1, 2, 0])]))
    parts = parts_of(evaluation, masks)
    assert [part.count for part in parts.values()] == [3, 2, 0, 1]
    assert parts["a"].better.tolist() == evaluation.better[[0, 1, 3]].tolist()
    assert math.isnan(parts["never a target"].mean("recall@5"))


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
