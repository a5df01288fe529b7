"""LightGCN against a dense reference and PyTorch Geometric, its negatives, users it never met, and a structure it must find."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.interactions import Interactions
from recsys.data.sequences import Sequences
from recsys.data.split import Split, SplitConfig, make_split
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError, ConfigError, DataError, NonFiniteError
from recsys.evaluation.evaluate import evaluate
from recsys.models.lightgcn import Graph, LightGCN, LightGCNConfig, Propagation, _Pairs, _scorer, bpr_loss, fit_lightgcn
from recsys.training.config import TrainingConfig
from recsys.types import UNKNOWN_NUM, Queries, Scorer


def training(**options: object) -> TrainingConfig:
    return TrainingConfig.parse({"epochs": 30, "validate_every": 10, "batch_size": 64, "learning_rate": 0.02} | options)


def ignore(scorer: Scorer) -> float:
    return 0.0


def train_rows(*rows: list[int]) -> Sequences:
    return Sequences.of_rows([np.array(row, dtype=np.int64) for row in rows])


def dense_mean_of_layers(rows: Sequences, n_items: int, values: torch.Tensor, layers: int) -> torch.Tensor:
    """Eq. 8 with the (U + I, U + I) matrix D^-1/2 A D^-1/2, powers written out."""
    n_users = len(rows)
    A = torch.zeros(n_users + n_items, n_users + n_items, dtype=values.dtype)
    for user, row in enumerate(rows):
        for item in row.tolist():
            A[user, n_users + item] = A[n_users + item, user] = 1.0
    inverse = torch.diag(A.sum(1).clamp(min=1).rsqrt())
    smoothing = inverse @ A @ inverse
    powers = [torch.linalg.matrix_power(smoothing, k) for k in range(layers + 1)]
    return torch.stack([power @ values for power in powers]).mean(0)


ROWS = train_rows([0, 1, 2, 1], [2, 3], [], [0, 3, 4])
"""Four users, six items: user 2 and item 5 met nothing, user 0 met item 1 twice."""


def values_for(rows: Sequences, n_items: int, dim: int = 3) -> torch.Tensor:
    return torch.randn(len(rows) + n_items, dim, generator=torch.Generator().manual_seed(1))


def test_one_layer_by_hand() -> None:
    # u0 - i0, u0 - i1, u1 - i1: weights 1/sqrt(2*1), 1/sqrt(2*2), 1/sqrt(1*2)
    graph = Graph(train_rows([0, 1], [1]), 2)
    smoothed = graph.smoothed(torch.tensor([[1.0], [10.0], [100.0], [1000.0]]))
    expected = [100 / 2**0.5 + 1000 / 2, 1000 / 2**0.5, 1 / 2**0.5, 1 / 2 + 10 / 2**0.5]
    assert smoothed[:, 0].tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_propagation_equals_the_dense_powers_in_value_and_gradient(layers: int) -> None:
    fast, slow = values_for(ROWS, 6).requires_grad_(), values_for(ROWS, 6).double().requires_grad_()
    weights = torch.randn(10, 3, generator=torch.Generator().manual_seed(2))
    mine = Propagation.apply(fast, Graph(ROWS, 6), layers)
    reference = dense_mean_of_layers(ROWS, 6, slow, layers)
    torch.testing.assert_close(mine, reference.float(), atol=1e-6, rtol=1e-5)
    (mine * weights).sum().backward()
    (reference * weights.double()).sum().backward()
    torch.testing.assert_close(fast.grad, slow.grad.float(), atol=1e-6, rtol=1e-5)


def test_propagation_equals_pytorch_geometric() -> None:
    from torch_geometric.nn.models import LightGCN as Theirs

    graph = Graph(ROWS, 6)
    theirs = Theirs(10, 3, 3)
    edges = torch.stack([graph.users, graph.items + graph.n_users])
    expected = theirs.get_embedding(torch.cat([edges, edges.flip(0)], dim=1))
    torch.testing.assert_close(graph.mean_of_layers(theirs.embedding.weight.detach(), 3), expected.detach(), atol=1e-6, rtol=1e-5)


def test_loss_equals_a_loop_over_triples_in_value_and_gradient() -> None:
    triples = [(0, 1, 3), (0, 2, 4), (3, 0, 2), (0, 1, 4)]
    fast, slow = values_for(ROWS, 6).requires_grad_(), values_for(ROWS, 6).double().requires_grad_()
    users, positives, negatives = (torch.tensor(column) for column in zip(*triples, strict=True))
    loss = bpr_loss(fast, Graph(ROWS, 6), users, positives, negatives, layers=2, regularisation=0.3)
    smooth = dense_mean_of_layers(ROWS, 6, slow, 2)
    terms = []
    for u, i, j in triples:
        penalty = sum(slow[node].square().sum() for node in (u, 4 + i, 4 + j))
        terms.append(-F.logsigmoid(smooth[u] @ smooth[4 + i] - smooth[u] @ smooth[4 + j]) + 0.3 / 2 * penalty)
    reference = torch.stack(terms).mean()
    assert loss.item() == pytest.approx(reference.item(), rel=1e-6)
    loss.backward()
    reference.backward()
    torch.testing.assert_close(fast.grad, slow.grad.float(), atol=1e-6, rtol=1e-5)


@given(st.lists(st.lists(st.integers(0, 5), max_size=12), min_size=1, max_size=6), st.integers(0, 3))
@settings(max_examples=80)
def test_an_epoch_is_every_pair_once_against_items_the_user_did_not_meet(rows: list[list[int]], seed: int) -> None:
    graph = Graph(train_rows(*rows), 8)
    met = [set(row) for row in rows]
    everything = set().union(*met)
    expected = sorted((user, item) for user, items in enumerate(met) if items != everything for item in items)
    if not expected:
        with pytest.raises(DataError, match="nothing to compare"):
            _Pairs(graph)
        return
    torch.manual_seed(seed)
    users, positives, negatives = (column.tolist() for column in _Pairs(graph).of_epoch())
    assert sorted(zip(users, positives, strict=True)) == expected
    assert all(item in everything - met[user] for user, item in zip(users, negatives, strict=True))


def test_negatives_are_uniform_over_what_the_user_did_not_meet() -> None:
    pairs = _Pairs(Graph(train_rows([0, 1], [2, 3, 4, 5]), 8))
    torch.manual_seed(0)
    counts = np.zeros(8)
    for _ in range(3000):
        users, _, negatives = pairs.of_epoch()
        counts += np.bincount(negatives[users == 0], minlength=8)
    assert counts[[0, 1, 6, 7]].tolist() == [0, 0, 0, 0]
    # 1,500 expected each, standard deviation 34
    assert abs(counts[2:6] - 1500).max() < 170


def two_blocks() -> Split:
    """Even users meet even items, odd users odd ones; which ones is random."""
    generator = np.random.default_rng(0)
    events = [(f"u{user}", f"i{2 * item + user % 2:02d}", time) for user in range(40) for time, item in enumerate(generator.permutation(12)[:8].tolist())]
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row")
    return make_split(SplitConfig(), Interactions.of_frame(frame, Vocabulary([f"i{item:02d}" for item in range(24)])))


def test_two_blocks_are_recovered() -> None:
    split = two_blocks()
    fit = fit_lightgcn(LightGCNConfig(dim=8, layers=2, training=training()), split, seed=0, validate=ignore)
    scores = fit.scorer.score(split.test.queries(), np.arange(24))
    same_block = split.test.user_nums[:, None] % 2 == np.arange(24)[None, :] % 2
    assert scores[same_block].min() > scores[~same_block].max()
    # 5 of 12 items of the block are unseen at test: 1/5 by chance within it, and 17 of 24 would be ranked without it
    assert evaluate(fit.scorer, split.test, metrics=("recall",), ks=(5,)).mean("recall@5") == 1.0


def test_history_falls_and_the_best_validation_is_kept() -> None:
    split, seen = two_blocks(), []

    def validate(scorer: Scorer) -> float:
        seen.append(scorer.score(split.validation.queries(), np.arange(24)))
        return -float(len(seen))

    fit = fit_lightgcn(LightGCNConfig(dim=8, training=training(patience=2)), split, seed=0, validate=validate)
    assert fit.best_epoch == 10 and len(fit.history) == 30 and not fit.capped
    assert fit.history[-1]["loss"] < fit.history[0]["loss"] < 0.8
    assert fit.parameters == (40 + 24) * 8
    np.testing.assert_array_equal(fit.scorer.score(split.validation.queries(), np.arange(24)), seen[0])


def test_equal_seeds_give_equal_results_and_others_do_not() -> None:
    split, config = two_blocks(), LightGCNConfig(dim=8, training=training(epochs=3, validate_every=3))
    first, second, other = (fit_lightgcn(config, split, seed=seed, validate=ignore) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.scorer.items(), second.scorer.items())
    assert first.history == second.history
    assert (first.scorer.items() != other.scorer.items()).any()


def test_a_killed_training_resumes_to_an_equal_model(tmp_path: Path) -> None:
    split, config = two_blocks(), LightGCNConfig(dim=8, training=training(epochs=6, validate_every=2))

    def killed_after_three(epoch: int, epochs: int, numbers: dict[str, float]) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    whole = fit_lightgcn(config, split, seed=0, validate=ignore)
    with pytest.raises(KeyboardInterrupt):
        fit_lightgcn(config, split, seed=0, checkpoint=tmp_path, validate=ignore, progress=killed_after_three, checkpoint_seconds=0)
    resumed = fit_lightgcn(config, split, seed=0, checkpoint=tmp_path, validate=ignore)
    np.testing.assert_array_equal(resumed.scorer.items(), whole.scorer.items())
    assert resumed.history == whole.history
    with pytest.raises(ArtifactError, match="another training"):
        fit_lightgcn(config, split, seed=1, checkpoint=tmp_path, validate=ignore)


def scorer_of(rows: Sequences, n_items: int, layers: int = 3) -> tuple[LightGCN, torch.Tensor]:
    values = values_for(rows, n_items)
    return _scorer(values, Graph(rows, n_items), layers, rows.counts(n_items)), values


def test_vectors_are_the_mean_of_the_layers() -> None:
    scorer, values = scorer_of(ROWS, 6)
    expected = dense_mean_of_layers(ROWS, 6, values, 3)
    queries = Queries(np.array([0, 1, 3]), [ROWS[0]] * 3)
    np.testing.assert_allclose(scorer.represent(queries), expected[[0, 1, 3]], atol=1e-6)
    np.testing.assert_allclose(scorer.items(), expected[4:], atol=1e-6)
    np.testing.assert_allclose(scorer.score(queries, np.array([4, 0])), (expected[[0, 1, 3]] @ expected[[8, 4]].T), atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_training_history_of_a_known_user_gives_its_vector_without_its_own_layer_0(layers: int) -> None:
    """The formula for users never seen is the propagation itself, read for one node."""
    scorer, values = scorer_of(ROWS, 6, layers)
    for user in (0, 1, 3):
        known = scorer.represent(Queries(np.array([user]), [ROWS[user]]))
        unseen = scorer.represent(Queries(np.array([UNKNOWN_NUM]), [ROWS[user]]))
        np.testing.assert_allclose(unseen[0], known[0] - values[user].numpy() / (layers + 1), atol=1e-6)


def test_a_new_user_equals_one_attached_to_the_dense_graph_layer_by_layer() -> None:
    scorer, values = scorer_of(ROWS, 6, layers=2)
    history = np.array([4, 2, 2])
    degrees = {2: 2, 4: 1}
    below = (dense_mean_of_layers(ROWS, 6, values, 0) + (2 * dense_mean_of_layers(ROWS, 6, values, 1) - values)).numpy()
    expected = sum(below[4 + item] / np.sqrt(2 * degree) for item, degree in degrees.items()) / 3
    np.testing.assert_allclose(scorer.represent(Queries.of_history(history))[0], expected, atol=1e-6)


def test_users_without_a_vector_are_answered_by_history_and_without_one_as_the_average() -> None:
    scorer, _ = scorer_of(ROWS, 6)
    history = np.array([1, 3])
    by_history = scorer.represent(Queries.of_history(history))[0]
    # 2 has no training interaction, 9 is a later row of a vocabulary that grew; item 5 is not in the graph
    states = scorer.represent(Queries(np.array([2, 9, UNKNOWN_NUM, 2, UNKNOWN_NUM]), [history, history, np.array([5, 3, 1]), history[:0], np.array([5])]))
    np.testing.assert_allclose(states[:3], np.stack([by_history] * 3), atol=1e-6)
    average = scorer.represent(Queries(np.array([0, 1, 3]), [history] * 3)).mean(axis=0)
    np.testing.assert_allclose(states[3:], np.stack([average] * 2), atol=1e-6)


def test_the_batch_equals_single_calls() -> None:
    scorer, _ = scorer_of(ROWS, 6)
    queries = Queries(np.array([3, UNKNOWN_NUM, 0, 2, UNKNOWN_NUM]), [ROWS[3], np.array([0, 1]), ROWS[0], np.array([4]), np.zeros(0, dtype=np.int64)])
    everything = np.arange(6)
    together = scorer.score(queries, everything)
    alone = np.concatenate([scorer.score(queries.slice(row, row + 1), everything) for row in range(5)])
    np.testing.assert_allclose(alone, together, atol=1e-6)
    out = np.empty_like(together)
    scorer.score_into(queries, everything, out)
    np.testing.assert_array_equal(out, together)


def test_items_without_interactions_are_not_scorable(tiny_cold_split: Split) -> None:
    fit = fit_lightgcn(LightGCNConfig(dim=4, training=training(epochs=1)), tiny_cold_split, seed=0, validate=ignore)
    assert fit.scorer.scorable_items().tolist() == (tiny_cold_split.item_counts() > 0).tolist()


def test_repeats_count_once(tiny_split: Split) -> None:
    once, twice = Graph(train_rows([0, 1], [1]), 2), Graph(train_rows([0, 1, 0], [1, 1]), 2)
    values = torch.randn(4, 2)
    torch.testing.assert_close(once.smoothed(values), twice.smoothed(values))
    assert len(twice.users) == 3


def test_round_trip(tmp_path: Path) -> None:
    scorer, _ = scorer_of(ROWS, 6)
    scorer.save(tmp_path)
    loaded = LightGCN.load(tmp_path)
    queries = Queries(np.array([0, 2, UNKNOWN_NUM]), [ROWS[0], np.array([1]), np.array([3, 4])])
    np.testing.assert_array_equal(loaded.score(queries, np.arange(6)), scorer.score(queries, np.arange(6)))
    np.testing.assert_array_equal(loaded.scorable_items(), scorer.scorable_items())
    (tmp_path / "lightgcn.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"lightgcn\.safetensors is missing"):
        LightGCN.load(tmp_path)


def test_bad_input(tiny_split: Split) -> None:
    scorer, _ = scorer_of(ROWS, 6)
    with pytest.raises(DataError, match=r"no item_num of this model \(0\.\.5\)"):
        scorer.represent(Queries.of_history(np.array([6])))
    with pytest.raises(ConfigError, match="sort_by_length"):
        LightGCNConfig.parse({"training": {"sort_by_length": True}})
    with pytest.raises(NonFiniteError, match="validation value"):
        fit_lightgcn(LightGCNConfig(dim=4, training=training(epochs=1)), tiny_split, seed=0, validate=lambda scorer: float("nan"))
