"""The promotion gate: it takes numbers, so that it can be tested and argued with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    promoted: bool
    reason: str


def decide(candidate_ndcg: float, champion_ndcg: float | None, *, same_split: bool, tolerance: float) -> Verdict:
    """Compare NDCG@10 on the same test cases.

    tolerance: share of the champion's value that a candidate may lose, for example 0.02. Figures of another split say
    nothing: then the candidate becomes a challenger and someone decides.
    """
    if champion_ndcg is None:
        return Verdict(True, "first version")
    if not same_split:
        return Verdict(False, "the champion was measured on another split; compare them and move the alias by hand")
    if candidate_ndcg < champion_ndcg * (1 - tolerance):
        return Verdict(False, f"NDCG@10 {candidate_ndcg:.4f} is below the champion's {champion_ndcg:.4f} by more than {tolerance:.0%}")
    return Verdict(True, f"NDCG@10 {candidate_ndcg:.4f} against the champion's {champion_ndcg:.4f}")
