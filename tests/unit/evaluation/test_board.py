"""Boards of hand-made runs: marks that need significance, splits that never mix, text that cannot break out."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.evaluation import board_html, board_text
from recsys.evaluation.board import FIGURES, Board, Mark, board_json, build_boards
from recsys.evaluation.metrics import METRICS
from recsys.evaluation.published import Published
from recsys.evaluation.run_comparison import compare_runs, compare_slices, detectable_difference, verdict
from recsys.evaluation.run_record import RunRecord, read_board, write_run
from recsys.evaluation.run_values import parse_metric, values_over_seeds
from recsys.evaluation.significance import paired_bootstrap

REPOSITORY = Path(__file__).parents[3]
CASES = 60
NAMES = ("recall@5", "recall@10", "ndcg@5", "ndcg@10", "mrr@10", "recall@20", "ndcg@20")


def put(folder: Path, model: str, better: list[int] | np.ndarray, *, seed: int = 0, tied: int = 1, split: str = "a" * 64, **facts: object) -> Path:
    """A run whose target stands behind `better` items in each case."""
    ranks, ties = np.asarray(better, dtype=np.int64), np.full(len(better), tied, dtype=np.int64)
    metrics = {name: float(METRICS[name.partition("@")[0]](ranks, ties, int(name.partition("@")[2])).mean()) for name in NAMES}
    given = {
        "dataset": "toy",
        "protocol": "leave_last_out",
        "split_hash": split,
        "model": model,
        "label": model.upper(),
        "seed": seed,
        "config": {},
        "cases": len(ranks),
        "metrics": metrics,
        "train_seconds": 2.0,
        "inference_ms_per_user": 0.5,
        "peak_rss_mb": 100.0,
        "threads": 1,
        "commit": "c0ffee",
        "command": f"recsys board toy --run {model}",
        "created": f"2026-01-01T00:00:0{seed}+00:00",
    }
    return write_run(folder, RunRecord(**{**given, **facts}), ranks, ties)


def only_board(folder: Path) -> Board:
    (board,) = build_boards(read_board(folder))
    return board


def marks(board: Board, metric: str = "ndcg@10") -> dict[str, Mark]:
    return {row.model: row.metrics[metric].mark for row in board.rows}


def test_a_model_that_wins_every_case_is_marked_as_best(tmp_path: Path) -> None:
    put(tmp_path, "first", [0] * CASES)
    put(tmp_path, "second", [2] * CASES)
    put(tmp_path, "third", [50] * CASES)
    board = only_board(tmp_path)
    assert [row.model for row in board.rows] == ["first", "second", "third"]
    first, second, third = (row.metrics["ndcg@10"] for row in board.rows)
    assert (first.mean, second.mean, third.mean) == (1.0, 0.5, 0.0)
    assert (second.low, second.high) == pytest.approx((0.5, 0.5))
    assert marks(board) == {"first": Mark.BEST, "second": Mark.NONE, "third": Mark.NONE}
    # Both find the target within ten: no difference, no winner.
    assert marks(board, "recall@10") == {"first": Mark.TOP, "second": Mark.TOP, "third": Mark.NONE}


def test_a_higher_mean_alone_earns_no_mark(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ranks = rng.integers(0, 30, CASES)
    other = ranks.copy()
    other[0] = 0 if ranks[0] else 1
    put(tmp_path, "one", ranks)
    put(tmp_path, "other", other)
    put(tmp_path, "far", [40] * CASES)
    board = only_board(tmp_path)
    assert board.rows[0].metrics["ndcg@10"].mean > board.rows[1].metrics["ndcg@10"].mean
    assert marks(board) == {"one": Mark.TOP, "other": Mark.TOP, "far": Mark.NONE}
    lone = tmp_path / "lone"
    put(lone, "one", ranks)
    assert marks(only_board(lone)) == {"one": Mark.NONE}


def test_gaps_are_holm_corrected_paired_bootstraps(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for model, shift in (("a", 0), ("b", 3), ("c", 4)):
        put(tmp_path, model, rng.integers(0, 14, CASES) + shift)
    board, runs = only_board(tmp_path), read_board(tmp_path)
    values = {record.model: values_over_seeds([(path, record)], ["ndcg@10"])["ndcg@10"] for path, record in runs}
    p_b, p_c = (paired_bootstrap(values["a"] - values[name]) for name in "bc")
    low, high = sorted((p_b, p_c))
    expected = {low: min(1.0, 2 * low), high: max(min(1.0, 2 * low), high)}
    gaps = {row.model: row.metrics["ndcg@10"].gap for row in board.rows}
    assert math.isnan(gaps["a"]) and gaps["b"] == expected[p_b] and gaps["c"] == expected[p_c]


def test_seeds_are_averaged_and_their_deviation_shown(tmp_path: Path) -> None:
    put(tmp_path, "m", [0] * 4, seed=0, train_seconds=10.0, validation={"ndcg@10": 1.0})
    put(tmp_path, "m", [2] * 4, seed=1, train_seconds=20.0, validation={"ndcg@10": 1.0}, capped="2 h")
    (row,) = only_board(tmp_path).rows
    value = row.metrics["ndcg@10"]
    assert row.seeds == (0, 1) and row.capped == ("2 h",) and row.stale == ()
    assert value.mean == 0.75 and value.deviation == pytest.approx(math.sqrt(0.125))
    assert row.figures["train seconds"].mean == 15.0
    assert row.figures["validation/test"].mean == pytest.approx((1.0 + 2.0) / 2)
    assert math.isnan(row.figures["coverage@10"].mean)
    text = board_text.markdown("toy", [only_board(tmp_path)], None)
    assert "0.7500 ± 0.3536 [0.7500, 0.7500]" in text and "15.0, capped (2 h)" in text


def test_ties_count_as_their_expectation(tmp_path: Path) -> None:
    put(tmp_path, "constant", [0] * 5, tied=100)
    assert only_board(tmp_path).rows[0].metrics["recall@10"].mean == pytest.approx(0.1)


def test_two_splits_never_share_a_table(tmp_path: Path) -> None:
    put(tmp_path, "one", [0] * 4)
    put(tmp_path, "other", [0] * 4, split="b" * 64)
    with pytest.raises(DataError, match=r"not of one split.*one-seed0.json.*other-seed0.json"):
        build_boards(read_board(tmp_path))
    put(tmp_path, "other", [0] * 3, split="b" * 64, protocol="held_out_items")
    boards = build_boards(read_board(tmp_path))
    assert [(b.protocol, b.cases, [row.model for row in b.rows]) for b in boards] == [("held_out_items", 3, ["other"]), ("leave_last_out", 4, ["one"])]
    html = board_html.render("toy", boards, None)
    identifiers = re.findall(r'\bid="([^"]*)"', html)
    assert len(identifiers) == len(set(identifiers))


def test_one_seed_twice_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "one", [0] * 4)
    for suffix in (".json", ".ranks.parquet"):
        path.with_name(f"copy-seed0{suffix}").write_bytes(path.with_suffix(suffix).read_bytes())
    with pytest.raises(DataError, match="two records of 'one' with seed 0"):
        build_boards(read_board(tmp_path))


def test_ranks_of_another_run_are_refused(tmp_path: Path) -> None:
    one, other = put(tmp_path, "one", [0] * 4), put(tmp_path, "other", [1] * 4)
    one.with_suffix(".ranks.parquet").write_bytes(other.with_suffix(".ranks.parquet").read_bytes())
    with pytest.raises(ArtifactError, match="one-seed0.json: the record says .* its ranks give"):
        build_boards(read_board(tmp_path))
    other.with_suffix(".ranks.parquet").unlink()
    with pytest.raises(ArtifactError, match="other-seed0.ranks.parquet: the ranks of this run cannot be read"):
        compare_runs(*[[run] for run in read_board(tmp_path)][::-1], ["ndcg@10"])


def test_seeds_of_other_settings_are_named(tmp_path: Path) -> None:
    put(tmp_path, "m", [0] * 4, seed=0, config={"dim": 8})
    put(tmp_path, "m", [0] * 4, seed=1, config={"dim": 16})
    board = only_board(tmp_path)
    assert board.rows[0].stale == (0,)
    assert "the settings of seed 0 are not those of the newest run" in board_text.markdown("toy", [board], None)


def test_text_from_data_cannot_break_out(tmp_path: Path) -> None:
    evil = "a|b `x` <script>alert(1)</script>"
    put(tmp_path, "m", [0, 30, 3], label=evil, command=evil, curve=[{"epoch": 1, "validation": 0.1}])
    published = Published(dataset="toy", sources={"s": {"title": evil, "where": evil, "differs": evil}}, rows=({"model": evil, "metrics": {}, "source": "s"},))
    boards = [only_board(tmp_path)]
    html = board_html.render(evil, boards, published)
    assert "<script" not in html and "&lt;script&gt;" in html and "http-equiv" in html
    assert not re.findall(r'(?:src|href)="(?!#)', html)
    for line in board_text.markdown("toy", boards, published).splitlines():
        if line.startswith("| ") and "script" in line:
            assert "<script" not in line and "a\\|b" in line
            assert len(re.findall(r"(?<!\\)\|", line)) in (8, 10, 9)


def test_html_holds_all_parts(tmp_path: Path) -> None:
    for model, shift in (("m", 0), ("n", 5)):
        put(tmp_path, model, np.arange(CASES) % 13 + shift, curve=[{"epoch": e, "loss": 1.0, "validation": e / 10} for e in (1, 2)])
    html = board_html.render("toy", [only_board(tmp_path)], None)
    assert html.count("<svg") == 3 and "mathdefault" not in html
    assert all(f'<th scope="col">{title}</th>' in html for title in ("Recall@5", "NDCG@20", "MRR@10", "valid / test", "train s", "ms / user"))
    assert html == board_html.render("toy", [only_board(tmp_path)], None)
    plain = board_json(only_board(tmp_path))
    assert plain["rows"][0]["metrics"]["ndcg@10"]["mark"] == "best" and set(plain["rows"][0]["figures"]) == set(FIGURES)
    assert plain["rows"][0]["figures"]["coverage@10"]["mean"] is None


@pytest.mark.parametrize("dataset", sorted(path.stem for path in (REPOSITORY / "experiments/published").glob("*.yaml")))
def test_published_files_are_valid(dataset: str) -> None:
    published = Published.of_dataset(dataset, REPOSITORY / "experiments/published")
    assert published is not None and published.dataset == dataset
    assert {row.source for row in published.rows} == set(published.sources)
    for row in published.rows:
        metrics = row.metrics
        assert metrics, row.model
        for k in (5, 10):
            # One relevant item: NDCG is at most Recall and at least its discount at the last rank.
            recall, ndcg = metrics.get(f"recall@{k}"), metrics.get(f"ndcg@{k}")
            assert recall is None or ndcg is None or recall / math.log2(k + 1) <= ndcg <= recall, row
        for noun in ("recall", "ndcg"):
            assert metrics.get(f"{noun}@5", 0) <= metrics.get(f"{noun}@10", 1), row


def test_published_mistakes(tmp_path: Path) -> None:
    assert Published.of_dataset("none", tmp_path) is None
    (tmp_path / "d.yaml").write_text("dataset: d\nsources: {}\nrows: [{model: m, metrics: {recall@10: .1}, source: nobody}]\n")
    with pytest.raises(ConfigError, match="unknown sources: nobody"):
        Published.of_dataset("d", tmp_path)
    (tmp_path / "d.yaml").write_text("dataset: d\nsources: {}\nrows: [{model: m, metrics: {recall@10: 9.3}, source: s}]\n")
    with pytest.raises(ConfigError, match="recall@10"):
        Published.of_dataset("d", tmp_path)


def runs_of(folder: Path, model: str) -> list[tuple[Path, RunRecord]]:
    return [run for run in read_board(folder) if run[1].model == model]


def test_a_winner_of_every_case_is_better(tmp_path: Path) -> None:
    put(tmp_path, "a", [0] * CASES)
    put(tmp_path, "b", [2] * CASES)
    (found,) = compare_runs(runs_of(tmp_path, "a"), runs_of(tmp_path, "b"), ["ndcg@10"])
    assert (found.mean_a, found.mean_b, found.difference, found.relative) == (1.0, 0.5, 0.5, 1.0)
    assert (found.better, found.worse, found.equal) == (CASES, 0, 0)
    assert found.p_bootstrap == found.holm == pytest.approx(1 / 2001)
    assert verdict(found, "A", "B") == "A is better than B on ndcg@10: +0.5000 [+0.5000, +0.5000], p < 0.001 after Holm"
    (turned,) = compare_runs(runs_of(tmp_path, "b"), runs_of(tmp_path, "a"), ["ndcg@10"])
    assert turned.difference == -found.difference and turned.holm == found.holm
    assert "B is worse than A" in verdict(turned, "B", "A")


def test_equal_models_have_p_of_one(tmp_path: Path) -> None:
    put(tmp_path, "a", np.arange(CASES))
    put(tmp_path, "b", np.arange(CASES))
    (found,) = compare_runs(runs_of(tmp_path, "a"), runs_of(tmp_path, "b"), ["ndcg@10"])
    assert (found.difference, found.p_bootstrap, found.p_t, found.p_wilcoxon, found.holm, found.effect) == (0, 1, 1, 1, 1, 0)
    assert (found.better, found.worse, found.equal) == (0, 0, CASES)
    assert "cannot be told apart on ndcg@10" in verdict(found, "A", "B")


def test_metrics_asked_together_are_corrected_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    put(tmp_path, "a", rng.integers(0, 18, CASES))
    put(tmp_path, "b", rng.integers(3, 20, CASES))
    a, b = runs_of(tmp_path, "a"), runs_of(tmp_path, "b")
    alone = {m: compare_runs(a, b, [m])[0].holm for m in ("ndcg@10", "recall@10")}
    together = {d.metric: d.holm for d in compare_runs(a, b, ["ndcg@10", "recall@10"])}
    low, high = sorted(alone.values())
    assert sorted(together.values()) == [min(1.0, 2 * low), max(min(1.0, 2 * low), high)]


def test_seeds_of_different_number_are_averaged_in_each_case(tmp_path: Path) -> None:
    put(tmp_path, "a", [0, 0], seed=0)
    put(tmp_path, "a", [2, 0], seed=1)
    put(tmp_path, "b", [2, 2])
    (found,) = compare_runs(runs_of(tmp_path, "a"), runs_of(tmp_path, "b"), ["ndcg@10"])
    assert found.mean_a == pytest.approx(0.875) and found.mean_b == 0.5
    assert found.effect == pytest.approx(0.375 / np.std([0.25, 0.5], ddof=1))


def test_detectable_difference_by_hand() -> None:
    difference = np.array([-1.0, 1.0] * 50)
    assert detectable_difference(difference) == pytest.approx((1.959964 + 0.841621) * difference.std(ddof=1) / 10, rel=1e-5)
    assert math.isnan(detectable_difference(np.zeros(1)))


def test_slices_show_means_of_both(tmp_path: Path) -> None:
    put(tmp_path, "a", [0] * 4, slices={"cold": {"count": 0, "recall@10": None}, "head": {"count": 4, "recall@10": 1.0}})
    put(tmp_path, "b", [0] * 4, slices={"cold": {"count": 0, "recall@10": None}, "head": {"count": 4, "recall@10": 0.5}, "own": {"count": 1}})
    cold, head = compare_slices(runs_of(tmp_path, "a"), runs_of(tmp_path, "b"))
    assert math.isnan(cold.mean_a) and cold.count == 0
    assert (head.name, head.metric, head.count, head.mean_a, head.mean_b) == ("head", "recall@10", 4, 1.0, 0.5)


def test_slices_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """A record's JSON sorts its keys."""
    names = ["cold", "few-shot", "tail", "head", "history 0", "history 1–5", "history 6–10", "history 11–20", "history 51+", "category Action", "category War"]
    for model in "ab":
        put(tmp_path, model, [0] * 4, slices={name: {"count": 4, "recall@10": 1.0} for name in sorted(names)})
    assert [part.name for part in compare_slices(runs_of(tmp_path, "a"), runs_of(tmp_path, "b"))] == names


@pytest.mark.parametrize("name", ["ndgc@10", "ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@ten", ""])
def test_unknown_metrics_list_the_known(name: str) -> None:
    with pytest.raises(ConfigError, match="recall, ndcg, mrr"):
        parse_metric(name)
