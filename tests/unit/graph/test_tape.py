"""TAPE's features and their fusion: nothing of a node's own label in its features, the mean by hand, a gate that learns whom to trust."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.errors import DataError
from recsys.graph.config import GnnConfig
from recsys.graph.logit_fusion import Gate, GateConfig, mean_of_logits
from recsys.graph.node_classifier import NodeClassifierConfig, accuracy
from recsys.graph.node_features import Ranks, Vectors
from recsys.graph.node_split import NodeSplit
from recsys.graph.out_of_fold import HeadConfig, out_of_fold
from recsys.graph.tape import TapeConfig, run_tape, with_head
from recsys.types import FloatArray, IntArray


def noise(n: int, d: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def test_a_head_cannot_tell_labels_that_mean_nothing() -> None:
    """In-fold, 40 numbers tell 60 random labels apart; out of fold they are no better than chance."""
    values, labels = noise(200, 40), np.random.default_rng(1).integers(0, 2, 200)
    train = np.arange(60)
    found = out_of_fold(HeadConfig(), values, labels, train, 2, seed=0)
    assert accuracy(found, labels, train) < 0.7
    from sklearn.linear_model import LogisticRegression

    assert LogisticRegression(C=10).fit(values[:60], labels[:60]).score(values[:60], labels[:60]) > 0.95


def test_a_nodes_own_label_moves_only_the_others() -> None:
    values, labels = noise(60, 5), np.arange(60) % 3
    train = np.arange(30)
    changed = labels.copy()
    changed[7] = (labels[7] + 3) % 3  # the same: the folds must not move
    unread = labels.copy()
    unread[30:] = -1
    one, two, three = (out_of_fold(HeadConfig(), values, known, train, 3, seed=4) for known in (labels, changed, unread))
    assert np.array_equal(one, two) and np.array_equal(one, three)
    np.testing.assert_allclose(one[train].sum(1), 1, rtol=1e-5)


def test_a_class_with_one_label_is_refused() -> None:
    with pytest.raises(DataError, match="class 1 has 1"):
        out_of_fold(HeadConfig(), noise(6, 2), np.array([0, 0, 1, 0, 0, 0]), np.arange(4), 2, seed=0)


def test_a_head_leaves_nodes_without_a_vector_alone() -> None:
    values, labels = noise(40, 4), np.arange(40) % 2
    values[35] = 0
    split = NodeSplit(np.arange(20), np.arange(20, 30), np.arange(30, 40))
    both = with_head(HeadConfig(), Vectors(values), labels, split, 2, seed=0).values
    assert both.shape == (40, 6) and not both[35].any()
    assert np.array_equal(both[:, :4], values)


def test_the_mean_of_logits_by_hand() -> None:
    one, two = np.array([[1.0, 3.0]], dtype=np.float32), np.array([[3.0, 2.0]], dtype=np.float32)
    assert mean_of_logits([one, two]).tolist() == [[2.0, 2.5]]
    with pytest.raises(DataError, match="one shape"):
        mean_of_logits([one, np.zeros((2, 2), dtype=np.float32)])
    with pytest.raises(DataError):
        mean_of_logits([])


def opinions(labels: IntArray, right: FloatArray, sure: float, seed: int) -> FloatArray:
    """Logits that name the label where `right`, else another class."""
    generator = np.random.default_rng(seed)
    named = np.where(right, labels, (labels + generator.integers(1, 4, len(labels))) % 4)
    return (np.eye(4)[named] * sure + generator.standard_normal((len(labels), 4)) * 0.1).astype(np.float32)


def test_a_gate_listens_to_the_kind_that_is_right_though_another_is_louder() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 400)
    wise = opinions(labels, generator.random(400) < 0.9, 2.0, 1)
    loud = opinions(labels, generator.random(400) < 0.4, 6.0, 2)
    nodes, judged = np.arange(200), np.arange(200, 400)
    gate = Gate.fit(GateConfig(), [wise, loud], labels, nodes)
    assert accuracy(mean_of_logits([wise, loud]), labels, judged) < 0.6
    assert accuracy(gate.apply([wise, loud]), labels, judged) > 0.85
    assert gate.shares([wise, loud])[0] > 0.6


def test_a_gate_without_freedom_is_the_mean() -> None:
    kinds = [noise(30, 3, 1), noise(30, 3, 2)]
    still = Gate(torch.zeros(2), torch.zeros(2), torch.ones(2))
    np.testing.assert_allclose(still.apply(kinds), mean_of_logits(kinds), rtol=1e-5, atol=1e-6)
    held = Gate.fit(GateConfig(penalty=1e6), kinds, np.arange(30) % 3, np.arange(30))
    np.testing.assert_allclose(held.apply(kinds), mean_of_logits(kinds), atol=1e-3)
    with pytest.raises(DataError, match="got none"):
        Gate.fit(GateConfig(), kinds, np.arange(30) % 3, np.arange(0))


def test_kinds_together_are_better_than_each_where_each_knows_a_part() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 4, 300)
    order = generator.permutation(300)
    split = NodeSplit(np.sort(order[:120]), np.sort(order[120:200]), np.sort(order[200:]))
    text = Vectors((np.eye(2)[labels // 2] + noise(300, 2) * 0.05).astype(np.float32))
    kinds = {"text": text, "prediction": Ranks((labels % 2)[:, None], 4, width=4)}
    config = TapeConfig(classifier=NodeClassifierConfig(gnn=GnnConfig(kind="mlp", layers=2, hidden=16), epochs=100))
    edges = torch.zeros(2, 0, dtype=torch.int64)
    found = run_tape(config, kinds, edges, labels, split, 4, seed=0)
    reached = {name: accuracy(logits, labels, split.test) for name, logits in found.logits.items()}
    # Of a kind that knows half, the epoch of the best accuracy is a matter of chance, and with it how loud its logits are.
    assert min(reached["mean"], reached["gate"]) > max(reached["text"], reached["prediction"]) + 0.08
    hidden = labels.copy()
    hidden[split.test] = -1
    again = run_tape(config, kinds, edges, hidden, split, 4, seed=0)
    assert all(np.array_equal(again.logits[name], logits) for name, logits in found.logits.items())
    assert sum(found.shares.values()) == pytest.approx(1, abs=1e-5)


def test_names_of_the_fusions_are_taken() -> None:
    split = NodeSplit(np.array([0]), np.array([1]), np.array([2]))
    for kinds in ({}, {"mean": Vectors(noise(3, 2))}):
        with pytest.raises(DataError, match="kinds of features"):
            run_tape(TapeConfig(), kinds, torch.zeros(2, 0, dtype=torch.int64), np.array([0, 1, 0]), split, 2, seed=0)
