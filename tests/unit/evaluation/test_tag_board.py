"""The board of node classification by hand: the best single kind by validation, paired tests, means of what was counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from recsys.evaluation.tag_board import TagLine, board_document, markdown

FACTS = {
    "dataset": "tag_x", "nodes": 10, "edges": 9, "texts": 8, "classes": ["a", "b"], "splits": {"public": [2, 2, 4]}, "features": {"words": "words"},
    "notes": ["cut"], "command": "recsys tag-board tag_x",
    "tape": {"writer": {"kind": "local", "model": "small"}, "ranker": None, "prompt_version": 1, "max_chars": 250, "features": "words"},
    "shots": {"writer": {"kind": "imported", "name": "large"}, "prompt_version": 1, "samples": 3, "features": "words", "validation": 2, "test": 4},
}  # fmt: skip
KINDS = ("text", "explanation", "prediction", "mean", "gate", "llm")


def cell(values: dict[str, tuple[float, float]], **facts: Any) -> dict[str, Any]:
    told = {name: {"validation": validation, "test": test} for name, (validation, test) in values.items()}
    return {"values": told, "facts": facts, "seconds": 1.5, "threads": 1, "commit": "abc"}


def tape() -> TagLine:
    """Three seeds, four test nodes each; the text is best on validation, the explanation on test."""
    right = np.random.default_rng(0).random((3, len(KINDS), 4)) < 0.5
    cells, judged = {}, {}
    for seed in range(3):
        kinds = {name: right[seed, place].astype(np.float32) for place, name in enumerate(KINDS)}
        validation = {"text": 0.9, "explanation": 0.5, "prediction": 0.4, "mean": 0.95, "gate": 0.95, "llm": 1.0}
        facts = {
            "shares": {"text": 0.5 + seed / 10},
            "nodes": 8,
            "explained": 7,
            "ranked": 8,
            "retried": 1,
            "missing": {"missing: no label": 1} if seed else {},
        }
        cells[seed] = cell({name: (validation[name], float(kinds[name].mean())) for name in KINDS}, **facts)
        judged[seed] = (np.arange(4) + seed, kinds)
    return TagLine("public-tape-gcn", "tape", {"split": "public", "network": "gcn"}, cells, judged)


def shots(variant: str, accuracies: list[float], k: int = 1, **facts: Any) -> TagLine:
    cells = {seed: cell({"accuracy": (0.5, accuracy)}, **facts) for seed, accuracy in enumerate(accuracies)}
    return TagLine(f"{k}shot-{variant}", "shots", {"k": k, "variant": variant, "label": f"with {variant}"}, cells, {})


def lines_of(*lines: TagLine) -> dict[str, Any]:
    document = board_document(lines, facts=FACTS, shots_against=["plain"], costs={})
    return {line["name"]: line for line in document["lines"]}


def test_fusions_are_compared_with_the_kind_that_validation_chose() -> None:
    line = tape()
    found = lines_of(line)["public-tape-gcn"]["fusion"]
    assert found["best_single"] == "text"  # neither a fusion nor the model's own first label
    test = line.values()
    for name in ("mean", "gate"):
        difference = test[name] - test["text"]
        assert found["tests"][name]["difference"] == pytest.approx(difference.mean())
    p = [float(stats.ttest_rel(test[name], test["text"]).pvalue) for name in ("mean", "gate")]
    low, high = sorted(p)
    assert sorted(found["tests"][name]["p_t"] for name in ("mean", "gate")) == pytest.approx([min(1, 2 * low), max(min(1, 2 * low), high)])
    assert 0 < found["tests"]["mean"]["p_nodes"] <= 1


def test_counts_are_means_over_seeds_and_what_is_not_there_is_zero() -> None:
    facts = lines_of(tape())["public-tape-gcn"]["facts"]
    assert facts["shares"] == {"text": 0.6} and facts["retried"] == 1 and facts["missing"] == {"missing: no label": pytest.approx(2 / 3, abs=1e-4)}


def test_shots_are_compared_at_the_same_k_over_the_seeds_that_both_have() -> None:
    own, base = [0.5, 0.7, 0.6], [0.4, 0.5, 0.5, 0.1]
    found = lines_of(shots("plain", base), shots("more", own), shots("more", [0.1], k=3))
    assert "against" not in found["1shot-plain"] and "against" not in found["3shot-more"]
    against = found["1shot-more"]["against"]["plain"]
    assert against["seeds"] == 3 and against["difference"] == pytest.approx(0.4 / 3) and against["relative"] == pytest.approx(0.4 / 1.4)
    assert against["p_t"] == pytest.approx(float(stats.ttest_rel(own, base[:3]).pvalue))
    values = found["1shot-plain"]["values"]["accuracy"]["test"]
    assert values["mean"] == pytest.approx(0.375) and values["deviation"] == pytest.approx(float(np.std(base, ddof=1)))


def test_one_seed_has_no_deviation_and_no_p() -> None:
    found = lines_of(shots("plain", [0.5]), shots("more", [0.7]))
    assert found["1shot-more"]["values"]["accuracy"]["test"]["deviation"] is None
    assert found["1shot-more"]["against"]["plain"]["p_t"] is None


def test_the_text_tells_what_the_numbers_say() -> None:
    words = TagLine("public-words-gcn", "classes", {"split": "public", "features": "words", "network": "gcn"}, {0: cell({"accuracy": (0.8, 0.75)})}, {})
    trial = TagLine("trial", "trials", {"row": "public-words-gcn", "overrides": "a=1"}, {0: cell({"accuracy": (0.8, 0.0)})}, {})
    more = shots("more", [0.7, 0.8], written=3, retried=1, missing={"too short": 2}, dropped={"off domain": 1}, added=2, edges=4)
    costs = {"explanations": {"answers": 4, "prompt_tokens": 40, "completion_tokens": 8, "seconds": 2.0}}
    document = board_document([words, trial, tape(), shots("plain", [0.5, 0.5]), more], facts=FACTS, shots_against=["plain"], costs=costs)
    text = markdown(document)
    for part in (
        "| words | **75.00** |",
        "| with more | **75.00 ± 7.07** | +50.0% (0.126) | 2 / 4 |",
        "missing too short 2.0, filtered out off domain 1.0",
        "| explanations | 4 | 40 / 8 | 2 | 2.00 | 4 |",
        "public GCN: no.",
        "| public-words-gcn | a=1 | 1 | 80.00 |",
        "- cut",
        "large writes 3 texts a class",
    ):
        assert part in text, (part, text)
