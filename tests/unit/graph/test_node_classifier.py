"""Classifying nodes: planted communities are found, labels of the test part are never read, ranks are learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.errors import DataError, NonFiniteError
from recsys.graph.layers import GnnConfig
from recsys.graph.node_classifier import NodeClassifierConfig, accuracy, classify
from recsys.graph.node_features import Ranks, Vectors
from recsys.graph.node_split import NodeSplit
from recsys.types import FloatArray, IntArray

CLASSES, PER_CLASS = 3, 30
FAST = NodeClassifierConfig(gnn=GnnConfig(layers=2, hidden=16, dropout=0.2), epochs=60, patience=60)


def communities() -> tuple[IntArray, torch.Tensor, FloatArray, NodeSplit]:
    """Edges lie within a class, and the vectors say almost nothing."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), PER_CLASS).astype(np.int64)
    chosen = [np.flatnonzero(labels == label) for label in range(CLASSES)]
    pairs = np.concatenate([generator.choice(nodes, (300, 2)) for nodes in chosen]).T
    edges = torch.from_numpy(np.concatenate([pairs, pairs[::-1]], axis=1))
    values = generator.standard_normal((len(labels), 8)).astype(np.float32)
    order = generator.permutation(len(labels))
    return labels, edges, values, NodeSplit(np.sort(order[:15]), np.sort(order[15:40]), np.sort(order[40:]))


def test_planted_communities_are_found_by_edges_and_not_without() -> None:
    labels, edges, values, split = communities()
    reached = {}
    for kind in ("gcn", "sage", "mlp"):
        config = FAST.model_copy(update={"gnn": GnnConfig(kind=kind, layers=2, hidden=16, dropout=0.2)})
        found = classify(config, Vectors(values), edges, labels, split, CLASSES, seed=0)
        reached[kind] = accuracy(found.logits, labels, split.test)
    assert reached["gcn"] > 0.9 and reached["sage"] > 0.7
    assert reached["mlp"] < 0.6


def test_the_same_seed_gives_the_same_logits_and_leaves_the_callers_stream_alone() -> None:
    labels, edges, values, split = communities()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two, other = (classify(FAST, Vectors(values), edges, labels, split, CLASSES, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert np.array_equal(one.logits, two.logits)
    assert not np.array_equal(one.logits, other.logits)


def test_labels_of_test_nodes_are_not_read() -> None:
    labels, edges, values, split = communities()
    hidden = labels.copy()
    hidden[split.test] = -1
    one, two = (classify(FAST, Vectors(values), edges, known, split, CLASSES, seed=0) for known in (labels, hidden))
    assert np.array_equal(one.logits, two.logits)


def test_the_validation_accuracy_is_that_of_the_logits_without_dropout() -> None:
    labels, edges, values, split = communities()
    heavy = FAST.model_copy(update={"gnn": GnnConfig(layers=2, hidden=16, dropout=0.8)})
    found = classify(heavy, Vectors(values), edges, labels, split, CLASSES, seed=0)
    assert found.validation == pytest.approx(accuracy(found.logits, labels, split.validation))


def test_training_ends_when_patience_is_over() -> None:
    labels, edges, values, split = communities()
    still = FAST.model_copy(update={"learning_rate": 1e-12, "patience": 3, "weight_decay": 0.0})
    found = classify(still, Vectors(values), edges, labels, split, CLASSES, seed=0)
    assert found.epochs - found.best_epoch == 3 and found.epochs < 60


def test_ranked_classes_are_learned_even_where_they_are_renamed() -> None:
    labels, edges, _, split = communities()
    ranked = np.stack([(labels + 1) % CLASSES, np.full_like(labels, -1)], axis=1)
    ranked[::7] = -1  # nothing was answered
    features = Ranks(ranked, CLASSES, width=4)
    mlp = FAST.model_copy(update={"gnn": GnnConfig(kind="mlp", layers=2, hidden=16), "epochs": 100, "patience": 100})
    found = classify(mlp, features, edges, labels, split, CLASSES, seed=0)
    known = split.test[ranked[split.test, 0] >= 0]
    assert accuracy(found.logits, labels, known) == 1.0
    unknown = split.test[ranked[split.test, 0] < 0]
    assert np.ptp(found.logits[unknown], axis=0).max() == 0  # nothing known is one and the same


def test_a_node_of_no_weight_is_not_learned_from() -> None:
    labels, edges, values, split = communities()
    wrong = labels.copy()
    wrong[split.train[:5]] = (wrong[split.train[:5]] + 1) % CLASSES
    without = NodeSplit(split.train[5:], split.validation, split.test)
    weights = np.ones(len(split.train), dtype=np.float32)
    weights[:5] = 0
    one = classify(FAST, Vectors(values), edges, wrong, split, CLASSES, seed=0, weights=weights)
    two = classify(FAST, Vectors(values), edges, labels, without, CLASSES, seed=0)
    np.testing.assert_allclose(one.logits, two.logits, rtol=1e-4, atol=1e-4)
    even = classify(FAST, Vectors(values), edges, labels, split, CLASSES, seed=0, weights=np.full(len(split.train), 3, dtype=np.float32))
    plain = classify(FAST, Vectors(values), edges, labels, split, CLASSES, seed=0)
    np.testing.assert_allclose(even.logits, plain.logits, rtol=1e-3, atol=1e-3)
    with pytest.raises(DataError, match="weights: one a node"):
        classify(FAST, Vectors(values), edges, labels, split, CLASSES, seed=0, weights=weights[:3])


def test_bad_input_is_refused() -> None:
    labels, edges, values, split = communities()
    with pytest.raises(DataError, match="features of 5 nodes"):
        classify(FAST, Vectors(values[:5]), edges, labels, split, CLASSES, seed=0)
    unlabelled = labels.copy()
    unlabelled[split.train[0]] = -1
    with pytest.raises(DataError, match="train nodes need labels"):
        classify(FAST, Vectors(values), edges, unlabelled, split, CLASSES, seed=0)
    with pytest.raises(NonFiniteError):
        Vectors(np.full((3, 2), np.nan, dtype=np.float32))
    with pytest.raises(DataError, match="-1 to 2"):
        Ranks(np.array([[3]]), 3)
    with pytest.raises(NonFiniteError, match="learning_rate"):
        classify(FAST, Vectors(np.full_like(values, 3e38)), edges, labels, split, CLASSES, seed=0)
