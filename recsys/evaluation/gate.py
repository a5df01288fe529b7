"""The promotion gate: it takes numbers, so that it can be tested and argued with.

A challenger is promoted when it is shown not to be worse than the champion by more than a tolerance: the one-sided lower bound of its
relative NDCG difference, by paired bootstrap over users, is at least minus the tolerance (a test of non-inferiority). An interval that is
too wide to tell means hold, not promote: the burden of proof is the challenger's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from scipy import stats

from recsys.config import Config
from recsys.evaluation.bootstrap import RESAMPLES, resampled_means
from recsys.evaluation.metrics import MetricArray

POWER = 0.8
ROUNDING = 1e-12
"""Of a mean: equal models must not differ by it."""


class GateConfig(Config):
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share of the champion's NDCG@10 that a new version may lose and still be promoted."""
    cold_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """The same for targets that training did not see."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of the one-sided bounds."""
    min_users: Annotated[int, Field(ge=2)] = 30
    """With fewer users nothing is concluded: bootstrap intervals of a handful are too narrow."""
    few_cold: Literal["hold", "pass"] = "hold"
    """What fewer than `min_users` users with a cold target mean. Without a single one there is nothing to test, and this check passes."""
    latency_ms: Annotated[float, Field(gt=0)] | None = 10.0
    """99th percentile of scoring a request in process; null: no budget."""
    parity_limit: Annotated[float, Field(gt=0)] = 1e-5
    """Largest difference allowed between an offline and a served score."""
    seed: int = 0
    """Of the bootstrap."""


class Outcome(StrEnum):
    PASS, HOLD, FAIL = "pass", "hold", "fail"


@dataclass(frozen=True)
class Pair:
    """A metric of both models on the same users: float64 (N,), rows aligned; a user with several cases counts with their mean."""

    challenger: MetricArray
    champion: MetricArray

    def __post_init__(self) -> None:
        if self.challenger.shape != self.champion.shape or self.challenger.ndim != 1:
            raise ValueError(f"the gate compares two rows of the same users, got shapes {self.challenger.shape} and {self.champion.shape}")


@dataclass(frozen=True)
class Evidence:
    """What a decision is made of.

    warm, cold: NDCG@10 on the newest cases, and on those with a cold target; None where there is no champion to compare with.
    incomparable: why a champion that there is was not compared ("" if it was).  latency_ms: None where it was not measured.
    parity: largest difference between an offline and a served score.  contract: what the data broke.
    """

    warm: Pair | None = None
    cold: Pair | None = None
    incomparable: str = ""
    latency_ms: float | None = None
    parity: float = 0.0
    same_top: bool = True
    contract: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """challenger relative to champion. low, high: one-sided bounds, each at the confidence of the gate; NaN where the champion's mean is 0.

    worst, best: the same bounds of mean(challenger) - (1 - tolerance) mean(champion), which exist then too; the decision is theirs.
    power_equal: probability that a challenger exactly as good would be promoted.  detectable: the smallest true relative difference
    that is promoted with probability 0.8. Both by the normal approximation.
    """

    users: int
    champion: float
    challenger: float
    relative: float
    low: float
    high: float
    worst: float
    best: float
    power_equal: float
    detectable: float


@dataclass(frozen=True)
class Check:
    name: str
    outcome: Outcome
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """promote: all checks passed. reject: one failed. hold: none failed, but something could not be told."""

    checks: tuple[Check, ...]

    @property
    def decision(self) -> Literal["promote", "hold", "reject"]:
        outcomes = {check.outcome for check in self.checks}
        return "reject" if Outcome.FAIL in outcomes else "hold" if Outcome.HOLD in outcomes else "promote"

    @property
    def promoted(self) -> bool:
        return self.decision == "promote"

    @property
    def reason(self) -> str:
        """The reasons that decided, in one line: those against a promotion, or all in favour."""
        against = [check for check in self.checks if check.outcome is not Outcome.PASS]
        return "; ".join(f"{check.name}: {check.reason}" for check in against or self.checks)

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is undefined is null."""
        checks = []
        for check in self.checks:
            numbers = {name: None if math.isnan(value) else value for name, value in check.numbers.items()}
            checks.append({"name": check.name, "outcome": check.outcome.value, "reason": check.reason, "numbers": numbers})
        return {"decision": self.decision, "reason": self.reason, "checks": checks}

    @classmethod
    def of_json(cls, document: Mapping[str, Any]) -> Verdict:
        """What `to_json` gave."""

        def check(values: Mapping[str, Any]) -> Check:
            numbers = {name: math.nan if value is None else float(value) for name, value in values["numbers"].items()}
            return Check(values["name"], Outcome(values["outcome"]), values["reason"], numbers)

        return cls(tuple(map(check, document["checks"])))


def decide(config: GateConfig, evidence: Evidence) -> Verdict:
    """Every check is made, so that the reasons are complete."""
    return Verdict((*_accuracy(config, evidence), _latency(config, evidence), _parity(config, evidence), _contract(evidence)))


def difference(pair: Pair, *, tolerance: float, confidence: float, seed: int, resamples: int = RESAMPLES) -> Difference:
    """Paired percentile bootstrap over users; NaN without any."""
    n = len(pair.champion)
    if not n:
        return Difference(0, *(math.nan,) * 9)
    values = np.stack([pair.challenger, pair.champion], axis=1)
    means = resampled_means(values, seed, resamples)
    shifted = means[:, 0] - (1 - tolerance) * means[:, 1]
    challenger, champion = values.mean(axis=0).tolist()
    worst, best = np.quantile(shifted, (1 - confidence, confidence)).tolist()
    relative = low = high = power = detectable = math.nan
    if champion > 0:
        relative = challenger / champion - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(means[:, 1] > 0, means[:, 0] / means[:, 1], np.where(means[:, 0] > 0, np.inf, 1.0)) - 1
        low, high = np.quantile(ratios, (1 - confidence, confidence), method="lower").tolist()
        error = float(shifted.std(ddof=1)) / champion
        z = float(stats.norm.ppf(confidence))
        power = float(stats.norm.cdf(tolerance / error - z)) if error > ROUNDING else 1.0
        detectable = (z + float(stats.norm.ppf(POWER))) * error - tolerance
    return Difference(n, champion, challenger, relative, low, high, worst, best, power, detectable)


def _accuracy(config: GateConfig, evidence: Evidence) -> tuple[Check, ...]:
    if evidence.incomparable:
        return (Check("NDCG@10", Outcome.HOLD, evidence.incomparable),)
    if evidence.warm is None:
        return (Check("NDCG@10", Outcome.PASS, "first version, there is no champion to compare with"),)
    checks = [_compared("NDCG@10", evidence.warm, config, config.tolerance, few=Outcome.HOLD)]
    if evidence.cold is None or not len(evidence.cold.champion):
        checks.append(Check("cold NDCG@10", Outcome.PASS, "no case with a cold target"))
    else:
        checks.append(_compared("cold NDCG@10", evidence.cold, config, config.cold_tolerance, few=Outcome(config.few_cold)))
    return tuple(checks)


def _compared(name: str, pair: Pair, config: GateConfig, tolerance: float, *, few: Outcome) -> Check:
    found = difference(pair, tolerance=tolerance, confidence=config.confidence, seed=config.seed)
    numbers = {key: float(value) for key, value in asdict(found).items()} | {"tolerance": tolerance, "confidence": config.confidence}
    if found.users < config.min_users:
        return Check(name, few, f"{found.users} users are too few to tell (fewer than {config.min_users})", numbers)
    seen = f"{found.challenger:.4f} against {found.champion:.4f} of {found.users} users"
    if not math.isnan(found.relative):
        seen += f", {found.relative:+.1%} with a lower bound of {found.low:+.1%} (one-sided {config.confidence:.0%})"
    if found.worst >= -ROUNDING:
        return Check(name, Outcome.PASS, f"{seen}; allowed is -{tolerance:.0%}", numbers)
    if found.best < -ROUNDING:
        return Check(name, Outcome.FAIL, f"{seen}; worse than the allowed -{tolerance:.0%} for certain (upper bound {found.high:+.1%})", numbers)
    needed = "" if math.isnan(found.detectable) else f"; a true {found.detectable:+.1%} would pass with probability {POWER:.0%}"
    return Check(name, Outcome.HOLD, f"{seen}; too wide to tell it from the allowed -{tolerance:.0%}{needed}", numbers)


def _latency(config: GateConfig, evidence: Evidence) -> Check:
    if config.latency_ms is None:
        return Check("latency", Outcome.PASS, "no budget is set")
    if evidence.latency_ms is None:
        return Check("latency", Outcome.HOLD, f"not measured; the budget is {config.latency_ms:g} ms")
    outcome = Outcome.PASS if evidence.latency_ms <= config.latency_ms else Outcome.FAIL
    reason = f"99th percentile {evidence.latency_ms:.2f} ms, the budget is {config.latency_ms:g} ms"
    return Check("latency", outcome, reason, {"p99_ms": evidence.latency_ms, "budget_ms": config.latency_ms})


def _parity(config: GateConfig, evidence: Evidence) -> Check:
    kept = evidence.parity <= config.parity_limit and evidence.same_top
    reason = f"offline and served scores differ by {evidence.parity:.1e} at most (limit {config.parity_limit:g}), same top 10: {evidence.same_top}"
    return Check("parity", Outcome.PASS if kept else Outcome.FAIL, reason, {"difference": evidence.parity})


def _contract(evidence: Evidence) -> Check:
    if evidence.contract:
        return Check("data contract", Outcome.FAIL, "; ".join(evidence.contract))
    return Check("data contract", Outcome.PASS, "kept")
