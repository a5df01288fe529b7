import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from recsys.data.split import Cases, Split
from recsys.errors import ConfigError, NonFiniteError, SpaceMismatchError
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.metrics import METRICS, expected_mrr, expected_ndcg, expected_recall
from recsys.heads.config import FusionConfig
from recsys.heads.dot import HeadedScorer
from recsys.heads.network import FusionNetwork
from recsys.heads.ranker import FusedRanker
from recsys.models.ligr import LigrConfig
from recsys.models.sasrec import SasRecConfig
from recsys.testing.scorers import ConstantScorer, MatrixScorer, OracleScorer, RandomScorer
from recsys.types import UNKNOWN_NUM, BoolArray, FloatArray, IntArray, Queries

NONE = np.zeros(0, dtype=np.int64)


def cases_of(targets: list[int], seen: list[list[int]] | None = None) -> Cases:
    rows = seen or [[] for _ in targets]
    return Cases.of_rows([(u, NONE, np.array(rows[u], dtype=np.int64), t) for u, t in enumerate(targets)])


def test_constant_scorer_gets_exactly_what_chance_gives():
    result = evaluate(ConstantScorer(40), cases_of([0, 7, 39]), ks=(5, 10))
    assert result.mean("recall@5") == 5 / 40
    assert result.mean("recall@10") == 10 / 40
    assert result.mean("ndcg@10") == pytest.approx(sum(1 / math.log2(r + 1) for r in range(1, 11)) / 40, abs=1e-15)
    assert result.mean("mrr@10") == pytest.approx(sum(1 / r for r in range(1, 11)) / 40, abs=1e-15)


def test_constant_scorer_after_masking_ranks_fewer_items():
    assert evaluate(ConstantScorer(40), cases_of([0], [list(range(1, 21))])).mean("recall@5") == 5 / 20


def test_oracle_gets_one_on_everything():
    result = evaluate(OracleScorer(30, {0: 4, 1: 29}), cases_of([4, 29]), ks=(1, 10))
    assert set(result.per_user) == {f"{name}@{k}" for name in METRICS for k in (1, 10)}
    assert all(result.mean(name) == (0.1 if name == "precision@10" else 1.0) for name in result.per_user)


def test_hand_computed_rank_three():
    result = evaluate(MatrixScorer(np.array([[9, 8, 7, 6]])), cases_of([2]), ks=(2, 3))
    assert result.mean("recall@2") == 0
    assert result.mean("recall@3") == 1
    assert result.mean("ndcg@3") == 0.5  # 1 / log2(4)
    assert result.mean("mrr@3") == pytest.approx(1 / 3)


@given(st.integers(0, 6), st.integers(1, 5), st.integers(0, 3), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_ties_equal_the_mean_over_all_orders(better: int, tied: int, worse: int, k: int):
    """Brute force: the target is the first of the tied block, every order of the block is tried."""
    ranks = [better + order.index(0) + 1 for order in itertools.permutations(range(tied))]
    scores = np.array([[5.0] * better + [3.0] * tied + [1.0] * worse])
    result = evaluate(MatrixScorer(scores), cases_of([better]), ks=(k,))
    inside = [r for r in ranks if r <= k]
    assert result.mean(f"recall@{k}") == pytest.approx(len(inside) / len(ranks), abs=1e-12)
    assert result.mean(f"ndcg@{k}") == pytest.approx(sum(1 / math.log2(r + 1) for r in inside) / len(ranks), abs=1e-12)
    assert result.mean(f"mrr@{k}") == pytest.approx(sum(1 / r for r in inside) / len(ranks), abs=1e-12)


def test_metrics_of_far_ranks_are_zero():
    better, tied = np.array([10, 1000]), np.array([1, 50])
    for metric in (expected_recall, expected_ndcg, expected_mrr):
        assert (metric(better, tied, 10) == 0).all()


class Vectors:
    """A backbone of random vectors whose users do not read their history."""

    def __init__(self, n_users: int, n_items: int, dim: int) -> None:
        self.n_items = n_items
        generator = np.random.default_rng(7)
        self._states, self._items = (generator.standard_normal((n, dim)).astype(np.float32) for n in (n_users, n_items))

    def represent(self, queries: Queries) -> FloatArray:
        return self._states[queries.user_nums]

    def items(self) -> FloatArray:
        return self._items

    def scorable_items(self) -> BoolArray:
        return np.arange(self.n_items) % 10 > 0


@pytest.fixture(scope="module")
def random_vectors() -> tuple[HeadedScorer, Cases]:
    """500 users whose target is among their 30 best items of 1,000 before anything is masked; histories of 0 to 12."""
    scorer, generator = HeadedScorer(Vectors(500, 1000, 64)), np.random.default_rng(8)
    scores = scorer.score(Queries(np.arange(500), [NONE] * 500), np.arange(1000))
    rows = [(u, h, h, int(np.argsort(-scores[u])[u % 30])) for u in range(500) for h in [generator.integers(0, 1000, int(generator.integers(0, 13)))]]
    return scorer, Cases.of_rows(rows)


@pytest.mark.parametrize(("chunk", "threads"), [(1, 1), (7, 2), (64, 1), (499, 2), (None, 2)])
def test_chunks_and_threads_change_nothing_on_random_vectors(random_vectors: tuple[HeadedScorer, Cases], chunk: int | None, threads: int):
    whole = evaluate(*random_vectors, chunk=500)
    with threadpool_limits(limits=threads):
        parts = evaluate(*random_vectors, chunk=chunk)
    assert 0.2 < whole.mean("recall@10") < 0.6
    for name in whole.per_user:
        np.testing.assert_allclose(parts.per_user[name], whole.per_user[name], atol=1e-6, rtol=0)
    np.testing.assert_array_equal(parts.lists, whole.lists)
    assert parts.coverage == whole.coverage


@pytest.fixture(scope="module", params=[SasRecConfig, LigrConfig], ids=["sasrec", "ligr"])
def ranker(request: pytest.FixtureRequest) -> tuple[FusedRanker, Cases]:
    """An encoder of fixed weights that no training has touched: 300 users with histories of 1 to 30 (the encoder reads 20),
    400 items, targets among the user's best. Another chunk pads these histories to another length: most scores move in their
    last digit (1e-5 of a deviation of 6), which a target as far as 1e-3 from all other items does not notice."""
    config = FusionConfig(encoder=request.param(dim=32, blocks=2, max_length=20), projection=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = FusionNetwork(config, 400, {}).eval()
        components = torch.randn(400, 1, 32)
    scorer = FusedRanker(config, network, components, np.ones(400, dtype=np.bool_), {}, {})
    generator = np.random.default_rng(9)
    histories = [generator.integers(0, 400, int(generator.integers(1, 31))) for _ in range(300)]
    scores = scorer.score(Queries(np.arange(300), histories), np.arange(400))
    targets = []
    for user, order in enumerate(np.argsort(-scores, axis=1)):
        gaps = -np.diff(scores[user, order])
        targets.append(int(next(order[rank] for rank in range(1 + user % 30, 399) if gaps[rank - 1 : rank + 1].min() > 1e-3)))
    return scorer, Cases.of_rows([(user, history, history, targets[user]) for user, history in enumerate(histories)])


@pytest.mark.parametrize(("chunk", "threads"), [(1, 1), (7, 2), (64, 2), (299, 1), (None, 2)])
def test_chunks_and_threads_move_no_metric_of_a_real_encoder(ranker: tuple[FusedRanker, Cases], chunk: int | None, threads: int):
    torch.set_num_threads(1)
    whole = evaluate(*ranker, chunk=300)
    torch.set_num_threads(threads)
    with threadpool_limits(limits=threads):
        parts = evaluate(*ranker, chunk=chunk)
    assert 0.2 < whole.mean("recall@10") < 0.6
    for name in whole.per_user:
        np.testing.assert_allclose(parts.per_user[name], whole.per_user[name], atol=1e-6, rtol=0, err_msg=name)
    assert parts.coverage == pytest.approx(whole.coverage, abs=1e-6)


def test_ranks_and_lists_equal_a_full_sort(random_vectors: tuple[HeadedScorer, Cases]):
    scorer, cases = random_vectors
    result = evaluate(scorer, cases, ks=(10,))
    for row in range(len(cases)):
        scores = scorer.score(cases.queries().slice(row, row + 1), np.arange(1000))[0]
        scores[np.arange(1000) % 10 == 0] = -np.inf
        masked = scores.copy()
        masked[np.setdiff1d(cases.seen[row], cases.targets[row])] = -np.inf
        np.testing.assert_array_equal(result.lists[row], np.argsort(-masked, kind="stable")[:10])
        if cases.targets[row] % 10:
            assert (result.better[row], result.tied[row]) == ((masked > masked[cases.targets[row]]).sum(), 1)


def test_the_lean_way_gives_the_same_metric_and_no_lists(random_vectors: tuple[HeadedScorer, Cases]):
    lean = evaluate(*random_vectors, metrics=("ndcg",), ks=(10,), lists=False)
    assert list(lean.per_user) == ["ndcg@10"]
    assert (lean.lists, lean.coverage) == (None, {})
    np.testing.assert_array_equal(lean.values("ndcg@10"), evaluate(*random_vectors).values("ndcg@10"))


def test_without_the_mask_the_history_is_ranked():
    scores, cases = MatrixScorer(np.array([[9, 8, 7, 6]])), cases_of([2], [[0, 1]])
    assert evaluate(scores, cases, masked=False).better.tolist() == [2]
    assert evaluate(scores, cases, masked=False, ks=(3,)).lists.tolist() == [[0, 1, 2]]
    assert evaluate(scores, cases, ks=(3,)).lists.tolist() == [[2, 3, UNKNOWN_NUM]]


def test_an_unknown_metric_lists_the_known_ones():
    with pytest.raises(ConfigError, match="'auc'; known are: recall, ndcg, mrr, hit, precision, map"):
        evaluate(ConstantScorer(3), cases_of([1]), metrics=("auc",))
    with pytest.raises(ConfigError, match="'recall@7'; evaluated were: recall@5"):
        evaluate(ConstantScorer(3), cases_of([1]), ks=(5,)).mean("recall@7")


def test_scores_of_another_type_or_shape_are_refused():
    class Wide(ConstantScorer):
        def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
            return super().score(queries, item_nums).astype(np.float64)

    with pytest.raises(ValueError, match=r"Wide returned float64 scores of shape \(1, 3\); float32 \(1, 3\)"):
        evaluate(Wide(3), cases_of([1]))


def test_large_finite_scores_are_no_error():
    assert evaluate(MatrixScorer(np.array([[3e38, 3e38, 1.0]])), cases_of([0]), ks=(1,)).mean("recall@1") == 0.5


@pytest.mark.parametrize("seen", [[], [3, 4, 5, 6, 7]])
def test_random_scorer_gets_exactly_what_chance_gives(seen: list[int]):
    """Each item that is not masked is the target once, so every rank from 1 to n comes once a user: the means are exact."""
    n_items, ks = 30, (1, 5, 20)
    targets = [item for item in range(n_items) if item not in seen]
    cases = Cases.of_rows([(user, NONE, np.array(seen, dtype=np.int64), target) for user in range(3) for target in targets])
    result, n = evaluate(RandomScorer(n_items), cases, ks=ks), len(targets)
    for k in ks:
        gains = {"recall": k, "hit": k, "precision": 1, "mrr": sum(1 / r for r in range(1, k + 1)), "ndcg": sum(1 / math.log2(r + 1) for r in range(1, k + 1))}
        gains["map"] = gains["mrr"]
        assert {name: result.mean(f"{name}@{k}") for name in METRICS} == pytest.approx({name: gains[name] / n for name in METRICS}, abs=1e-14)


def test_constant_scorer_gets_what_chance_gives_under_every_metric_after_masking():
    result, n = evaluate(ConstantScorer(40), cases_of([0, 25], [list(range(1, 21)), list(range(20))]), ks=(5,)), 20
    reciprocal, discounted = sum(1 / r for r in range(1, 6)), sum(1 / math.log2(r + 1) for r in range(1, 6))
    expected = {"recall": 5, "hit": 5, "precision": 1, "mrr": reciprocal, "map": reciprocal, "ndcg": discounted}
    for name in METRICS:
        np.testing.assert_allclose(result.values(f"{name}@5"), [expected[name] / n, expected[name] / n], atol=1e-15)


def test_a_split_names_the_user_and_fixes_the_number_of_items(tiny_split: Split):
    split = tiny_split
    bad = np.zeros((len(split.users), split.n_items))
    user_num = int(split.test.user_nums[-1])
    bad[user_num, 0] = np.inf
    with pytest.raises(NonFiniteError, match=rf"user_num {user_num} \(user_id '{split.users.ids[user_num]}'\)"):
        evaluate(MatrixScorer(bad), split.test, split=split)
    with pytest.raises(SpaceMismatchError, match=f"fitted on {split.n_items + 1} items, the split has {split.n_items}"):
        evaluate(ConstantScorer(split.n_items + 1), split.test, split=split)


def test_seen_items_are_masked_except_the_target():
    scores = MatrixScorer(np.array([[9, 8, 7, 6]]))
    assert evaluate(scores, cases_of([2], [[0, 1]]), ks=(1,)).mean("recall@1") == 1
    assert evaluate(scores, cases_of([2], [[0, 1, 2, 2]]), ks=(1,)).mean("recall@1") == 1
    assert evaluate(scores, cases_of([2], [[0]]), ks=(1,)).mean("recall@1") == 0


def test_unscorable_items_rank_last_and_a_target_among_them_misses():
    scorable = np.array([True, False, True, True])
    scores = np.array([[1, np.nan, 2, 3], [1, np.inf, 2, 3]])
    result = evaluate(MatrixScorer(scores, scorable=scorable), cases_of([0, 1]), ks=(3, 4))
    assert result.per_user["recall@3"].tolist() == [1, 0]
    assert result.per_user["recall@4"].tolist() == [1, 0]
    nothing = evaluate(ConstantScorer(4, scorable=np.zeros(4, dtype=bool)), cases_of([0, 1]), ks=(4,))
    assert nothing.mean("recall@4") == 0
    assert nothing.coverage["coverage@4"] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_names_model_and_user(bad: float):
    scores = np.zeros((3, 5))
    scores[2, 1] = bad
    with pytest.raises(NonFiniteError, match=r"MatrixScorer.*user_num 2, item_num 1"):
        evaluate(MatrixScorer(scores), cases_of([0, 0, 0]), chunk=2)


def test_candidates_restrict_the_ranking():
    scores = MatrixScorer(np.array([[9, 8, 7, 6]]))
    cold = np.array([False, False, True, True])
    result = evaluate(scores, cases_of([3]), ks=(1, 2), candidates=cold)
    assert (result.mean("recall@1"), result.mean("recall@2"), result.n_candidates) == (0, 1, 2)
    assert result.mean("ndcg@2") == pytest.approx(1 / math.log2(3))
    with pytest.raises(ValueError, match="not among the candidates"):
        evaluate(scores, cases_of([0]), candidates=cold)
    with pytest.raises(SpaceMismatchError):
        evaluate(scores, cases_of([3]), candidates=cold[:3])


def test_items_that_the_model_does_not_know_are_an_error():
    with pytest.raises(SpaceMismatchError, match="fitted on 3 items"):
        evaluate(ConstantScorer(3), cases_of([3]))


def test_no_cases_give_nan_and_count_zero():
    result = evaluate(ConstantScorer(3), cases_of([]))
    assert result.count == len(result) == 0
    assert math.isnan(result.mean("ndcg@10"))
    assert all(math.isnan(v) for v in result.interval("ndcg@10"))
    assert result.to_json()["metrics"]["ndcg@10"] == {"mean": None, "low": None, "high": None}


def test_intervals_hold_the_mean_and_follow_the_seed():
    result = evaluate(RandomScorer(30), cases_of(list(range(30)) * 4))
    low, high = result.interval("recall@10", seed=1)
    assert low < result.mean("recall@10") < high
    assert result.interval("recall@10", seed=1) == (low, high)
    assert high - low == pytest.approx(2 * 1.96 * result.per_user["recall@10"].std() / math.sqrt(120), rel=0.1)


def test_coverage_counts_items_shown_to_anyone():
    scores = np.array([[9, 8, 0, 0], [9, 0, 0, 8.0]])
    assert evaluate(MatrixScorer(scores), cases_of([1, 1]), ks=(1, 2)).coverage == {"coverage@1": 0.25, "coverage@2": 0.75}


def test_agrees_with_ir_measures_without_ties():
    ir = pytest.importorskip("ir_measures")
    n_items, targets = 60, [(7 * u) % 60 for u in range(40)]
    result = evaluate(RandomScorer(n_items, seed=3), cases_of(targets), ks=(5, 10))
    scores = RandomScorer(n_items, seed=3).score(cases_of(targets).queries(), np.arange(n_items))
    assert all(len(np.unique(row)) == n_items for row in scores)
    qrels = [ir.Qrel(str(u), str(t), 1) for u, t in enumerate(targets)]
    run = [ir.ScoredDoc(str(u), str(i), float(scores[u, i])) for u in range(len(targets)) for i in range(n_items)]
    for name, measure in (("recall", ir.R), ("ndcg", ir.nDCG), ("mrr", ir.RR), ("hit", ir.Success), ("precision", ir.P), ("map", ir.AP)):
        for k in (5, 10):
            theirs = {int(m.query_id): m.value for m in ir.iter_calc([measure @ k], qrels, run)}
            np.testing.assert_allclose(result.per_user[f"{name}@{k}"], [theirs[u] for u in range(len(targets))], atol=1e-9, rtol=0)
