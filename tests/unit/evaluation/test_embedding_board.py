"""The board of embeddings: figures, intervals and tests of its lines."""

import json

import numpy as np
import pytest

from recsys.errors import ConfigError
from recsys.evaluation.embedding_board import TESTED, EmbeddingLine, Question, board_document, markdown


def line(name: str, hits: list[int], n: int = 400, *, seeds: int = 1) -> EmbeddingLine:
    """The cases in `hits` are found, on each metric."""
    values = np.zeros(n)
    values[hits] = 1.0
    metrics = {f"{kind} {metric}": values for kind in ("item_to_item", "over items", "cold", "cold_only") for metric in ("recall@10", "ndcg@10", "mrr@10")}
    return EmbeddingLine(name, name.upper(), metrics, {m: [float(v.mean())] * seeds for m, v in metrics.items()}, 8, ["s"] * seeds, trained=seeds > 1)


def document(*lines: EmbeddingLine) -> dict:
    return board_document(lines, "base", dataset="shop", split_hash="0123456789abcdef", protocol="held_out_items")


def test_differences_are_the_line_minus_the_base_and_holm_corrects_over_lines() -> None:
    base, better, same = line("base", list(range(40))), line("better", list(range(120)), seeds=3), line("same", list(range(40)))
    found = document(base, better, same)
    by_name = {row["name"]: row for row in found["lines"]}
    assert by_name["base"]["against"] == {}
    for metric in TESTED:
        gain = by_name["better"]["against"][metric]
        assert gain["difference"] == pytest.approx(0.2) and gain["low"] < 0.2 < gain["high"] and gain["low"] > 0.1
        assert gain["holm"] < 0.01 and gain["better"] == pytest.approx(0.2) and gain["worse"] == 0
        assert gain["holm"] == pytest.approx(2 * gain["p_bootstrap"])
        assert by_name["same"]["against"][metric]["difference"] == 0 and by_name["same"]["against"][metric]["holm"] == 1
    figure = by_name["better"]["metrics"]["cold recall@10"]
    assert figure["mean"] == pytest.approx(0.3) and figure["low"] < 0.3 < figure["high"] and len(figure["seeds"]) == 3
    assert found["cases"] == {"item_to_item": 400, "over items": 400, "cold": 400, "cold_only": 400}
    json.dumps(found, allow_nan=False)


def test_the_table_marks_the_best_and_shows_the_tests() -> None:
    text = markdown(document(line("base", list(range(40))), line("better", list(range(120)), seeds=3)))
    rows = [row for row in text.splitlines() if row.startswith("| B")]
    assert rows[0].startswith("| BASE | 8 | 1 | 0.1000 ± ") and rows[0].endswith("| – | – |")
    assert "**0.3000 ± " in rows[1] and rows[1].endswith("| +0.2000 (<0.001) | +0.2000 (<0.001) |")
    assert len({row.count("|") for row in text.splitlines() if row.startswith("|")}) == 1
    assert "Δ against BASE" in text and "400 cold only" in text


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="no line 'base'.*other"):
        document(line("other", []))
    with pytest.raises(ValueError, match="'short' and 'base' were measured on different cases"):
        document(line("base", []), line("short", [], 10))


def test_questions_are_answered_by_pairs_and_wait_for_their_lines() -> None:
    lines = [line("base", list(range(40))), line("other", list(range(100))), line("better", list(range(120)))]
    questions = [Question("Better?", "better", ["other", "base"]), Question("Not yet", "better", ["missing"])]
    found = board_document(lines, "base", dataset="shop", split_hash="0" * 64, protocol="held_out_items", questions=questions)
    (question,) = found["questions"]
    answers = {answer["than"]: answer["tests"]["cold recall@10"] for answer in question["answers"]}
    assert answers["other"]["difference"] == pytest.approx(0.05) and answers["base"]["difference"] == pytest.approx(0.2)
    assert answers["other"]["low"] > 0 and answers["base"]["holm"] == pytest.approx(2 * answers["base"]["p_bootstrap"])
    text = markdown(found)
    assert "| Better? | BETTER | OTHER | +0.0500 [+0.0" in text and "Not yet" not in text
    assert "## Asked" not in markdown(document(*lines))
    json.dumps(found, allow_nan=False)
