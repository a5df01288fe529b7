"""The gate: what it promotes, what it holds, what it rejects, and that its interval and its power are what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation.bootstrap import resampled_means
from recsys.evaluation.gate import Evidence, GateConfig, Outcome, Pair, Verdict, decide, difference

CONFIG = GateConfig()
GOOD = Evidence(warm=Pair(np.full(100, 0.5), np.full(100, 0.5)), latency_ms=1.0)


def noisy(relative: float, *, n: int = 2000, noise: float = 0.02, seed: int = 0) -> Pair:
    """A champion of mean 0.1 and a challenger that is `relative` better, with noise of its own."""
    generator = np.random.default_rng(seed)
    champion = generator.uniform(0.05, 0.15, n)
    return Pair(champion * (1 + relative) + generator.normal(0, noise, n), champion)


def test_a_first_version_is_promoted() -> None:
    verdict = decide(CONFIG, Evidence(latency_ms=1.0))
    assert verdict.promoted and "first version" in verdict.reason


@pytest.mark.parametrize(("value", "decision"), [(0.6, "promote"), (0.5, "promote"), (0.49, "promote"), (0.4899, "reject"), (0.1, "reject")])
def test_without_spread_the_tolerance_is_a_line(value: float, decision: str) -> None:
    """All users alike: the bounds are the difference itself, and two percent of 0.5 are 0.01."""
    verdict = decide(CONFIG, replace(GOOD, warm=Pair(np.full(100, value), np.full(100, 0.5))))
    assert verdict.decision == decision
    assert [verdict.checks[0].numbers[bound] for bound in ("low", "high")] == pytest.approx([value / 0.5 - 1] * 2)


def test_an_interval_too_wide_to_tell_is_a_hold() -> None:
    verdict = decide(CONFIG, replace(GOOD, warm=noisy(0.0, n=100, noise=0.1)))
    assert (verdict.decision, verdict.checks[0].outcome) == ("hold", Outcome.HOLD)
    assert "too wide to tell" in verdict.reason and "would pass with probability 80%" in verdict.reason


def test_a_worse_challenger_is_rejected_and_a_better_one_promoted() -> None:
    assert decide(CONFIG, replace(GOOD, warm=noisy(-0.10))).decision == "reject"
    assert decide(CONFIG, replace(GOOD, warm=noisy(0.05))).decision == "promote"


def test_cold_items_have_a_veto() -> None:
    verdict = decide(CONFIG, replace(GOOD, warm=noisy(0.3), cold=noisy(-0.2)))
    assert verdict.decision == "reject" and verdict.reason.startswith("cold NDCG@10: ")
    assert decide(CONFIG, replace(GOOD, cold=noisy(0.0, n=60, noise=0.1))).decision == "hold"


def test_cold_items_that_both_models_miss_are_no_difference() -> None:
    """A mean of 0 has no relative difference; the bound that decides exists all the same."""
    verdict = decide(CONFIG, replace(GOOD, cold=Pair(np.zeros(80), np.zeros(80))))
    assert verdict.promoted and math.isnan(verdict.checks[1].numbers["relative"])
    assert verdict.to_json()["checks"][1]["numbers"]["relative"] is None
    assert Verdict.of_json(verdict.to_json()).to_json() == verdict.to_json()
    gained = np.zeros(80)
    gained[:20] = 1.0
    assert decide(CONFIG, replace(GOOD, cold=Pair(gained, np.zeros(80)))).promoted
    assert decide(CONFIG, replace(GOOD, cold=Pair(np.zeros(80), gained))).decision == "reject"


def test_few_users_tell_nothing_and_none_are_no_cold_cases() -> None:
    few = Pair(np.full(5, 0.5), np.full(5, 0.5))
    assert decide(CONFIG, replace(GOOD, warm=few)).decision == "hold"
    assert decide(CONFIG, replace(GOOD, cold=few)).decision == "hold"
    assert decide(CONFIG.model_copy(update={"few_cold": "pass"}), replace(GOOD, cold=few)).promoted
    assert decide(CONFIG, replace(GOOD, cold=Pair(np.zeros(0), np.zeros(0)))).promoted
    assert decide(CONFIG, replace(GOOD, warm=Pair(np.zeros(0), np.zeros(0)))).decision == "hold"


@pytest.mark.parametrize(
    ("change", "decision", "message"),
    [
        ({"latency_ms": 10.1}, "reject", "latency: 99th percentile 10.10 ms"),
        ({"latency_ms": None}, "hold", "not measured"),
        ({"parity": 2e-5}, "reject", "parity: offline and served scores differ by 2.0e-05"),
        ({"same_top": False}, "reject", "same top 10: False"),
        ({"contract": ("events of the day: 3", "no titles")}, "reject", "data contract: events of the day: 3; no titles"),
        ({"incomparable": "another split", "warm": None}, "hold", "another split"),
    ],
)
def test_each_of_the_other_conditions_stops_a_promotion(change: dict[str, object], decision: str, message: str) -> None:
    verdict = decide(CONFIG, replace(GOOD, **change))
    assert verdict.decision == decision and message in verdict.reason
    assert len([check for check in verdict.checks if check.outcome is not Outcome.PASS]) == 1


def test_a_failure_weighs_more_than_a_doubt_and_both_are_told() -> None:
    verdict = decide(CONFIG, replace(GOOD, latency_ms=99.0, warm=noisy(0.0, n=100, noise=0.1)))
    assert verdict.decision == "reject" and "too wide" in verdict.reason and "latency" in verdict.reason


def test_the_bounds_equal_a_loop_over_the_same_resamples() -> None:
    pair = noisy(-0.01, n=150, noise=0.05)
    found = difference(pair, tolerance=0.02, confidence=0.95, seed=3, resamples=500)
    draws = resampled_means(np.eye(150), 3, 500)
    worst = sorted(float(draw @ pair.challenger - 0.98 * (draw @ pair.champion)) for draw in draws)
    ratios = sorted(float(draw @ pair.challenger) / float(draw @ pair.champion) - 1 for draw in draws)
    assert found.worst == pytest.approx(np.quantile(worst, 0.05)) and found.best == pytest.approx(np.quantile(worst, 0.95))
    assert found.low == pytest.approx(ratios[int(0.05 * 499)]) and found.low < found.relative < found.high


def test_the_lower_bound_is_that_of_the_normal_approximation() -> None:
    pair = noisy(0.0, n=4000, noise=0.05)
    found = difference(pair, tolerance=0.02, confidence=0.95, seed=0)
    error = (pair.challenger - (1 + found.relative) * pair.champion).std(ddof=1) / math.sqrt(4000) / found.champion
    assert found.low == pytest.approx(found.relative - 1.645 * error, abs=error / 8)


def test_power_is_how_often_an_equal_challenger_passes() -> None:
    """200 nights of equal models; the stated power is the share of them that were promoted, and so is 0.8 at `detectable`."""
    config = CONFIG.model_copy(update={"latency_ms": None})
    stated = difference(noisy(0.0, n=400, noise=0.025), tolerance=0.02, confidence=0.95, seed=0)
    assert 0.3 < stated.power_equal < 0.7
    for relative, power in ((0.0, stated.power_equal), (stated.detectable, 0.8)):
        passed = [decide(config, Evidence(warm=noisy(relative, n=400, noise=0.025, seed=seed))).promoted for seed in range(200)]
        assert np.mean(passed) == pytest.approx(power, abs=0.1)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=30, max_size=60), st.floats(0.001, 0.5))
def test_better_users_never_turn_a_promotion_down(values: list[tuple[float, float]], gain: float) -> None:
    challenger, champion = (np.array(column) for column in zip(*values, strict=True))
    before, after = (decide(CONFIG, replace(GOOD, warm=Pair(c, champion))) for c in (challenger, challenger + gain))
    rank = ["reject", "hold", "promote"]
    assert rank.index(after.decision) >= rank.index(before.decision)


def test_pairs_are_of_the_same_users() -> None:
    with pytest.raises(ValueError, match="the same users"):
        Pair(np.zeros(3), np.zeros(4))
