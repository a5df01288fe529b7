"""The fused ranker in a world whose answer is known: text for what is new, collaboration for what is known, and a gate that tells them apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from recsys.heads.fusion import FusedRanker, FusionConfig, fit_ranker
from recsys.types import Queries
from tests.unit.heads.planted import CLUSTERS, Table, World, world


@pytest.fixture(scope="module")
def planted() -> World:
    return world()


def fit(planted: World, tables: dict[str, Table], **options: object) -> FusedRanker:
    config = FusionConfig.parse(
        {
            "encoder": {"dim": 16, "blocks": 1, "max_length": 8, "dropout": 0.0},
            "training": {"epochs": 15, "batch_size": 16, "learning_rate": 0.01, "patience": 99},
            "projection": False,
            **options,
        }
    )
    epochs = itertools.count()
    return fit_ranker(config, planted.split, tables, seed=0, validate=lambda scorer: float(next(epochs))).ranker


@pytest.fixture(scope="module")
def fused(planted: World) -> FusedRanker:
    return fit(planted, {"text": planted.text})


def queries(planted: World) -> Queries:
    """Two popular items, one after the other: a query for each of the second ones."""
    rows = [np.array([np.flatnonzero(planted.follows == item)[0], item]) for item in planted.popular]
    return Queries(np.full(len(rows), -1), rows)


def warm_accuracy(planted: World, ranker: FusedRanker) -> float:
    found = planted.popular[ranker.score(queries(planted), planted.popular).argmax(axis=1)]
    return float((found == planted.follows[planted.popular]).mean())


def cold_accuracy(planted: World, ranker: FusedRanker) -> float:
    """Of the cold items alone, is the first of the right cluster? By chance 1 / CLUSTERS."""
    found = planted.cold[ranker.score(queries(planted), planted.cold).argmax(axis=1)]
    return float((planted.cluster[found] == (planted.cluster[planted.popular] + 1) % CLUSTERS).mean())


def test_warm_items_go_by_collaboration_and_cold_ones_by_text(planted: World, fused: FusedRanker) -> None:
    assert warm_accuracy(planted, fused) == 1.0
    assert cold_accuracy(planted, fused) == 1.0
    ids = fit(planted, {})
    assert warm_accuracy(planted, ids) == 1.0 and not ids.scorable_items()[planted.cold].any()
    text = fit(planted, {"text": planted.text}, use_ids=False)
    assert cold_accuracy(planted, text) == 1.0 and warm_accuracy(planted, text) < 0.8
    noise = fit(planted, {"text": Table(np.random.default_rng(1).normal(size=planted.text.values.shape))})
    assert warm_accuracy(planted, noise) == 1.0 and cold_accuracy(planted, noise) < 0.5


def test_the_gate_trusts_the_id_the_more_the_more_training_saw_of_it(fused: FusedRanker) -> None:
    counts = torch.tensor([0.0, 1.0, 5.0, 20.0, 100.0])
    gate = fused._network.gate
    assert gate is not None
    weights = gate(torch.stack([counts > 0, torch.ones(5, dtype=torch.bool)], dim=1), counts)
    assert weights[0].tolist() == [0.0, 1.0]
    assert (weights[2:, 0] > weights[1:-1, 0]).all() and weights[-1, 0] > 1.1 * weights[-1, 1]


def test_shares_say_which_signal_decided(planted: World, fused: FusedRanker) -> None:
    shares = fused.shares(queries(planted), np.arange(len(planted.cluster)))
    assert (shares["id"][:, planted.cold] == 0).all()
    rows = np.arange(len(planted.popular))
    siblings = [planted.popular[(planted.cluster[planted.popular] == planted.cluster[i]) & (planted.popular != i)] for i in planted.follows[planted.popular]]
    lead = {name: share[rows, planted.follows[planted.popular]] - [share[r, siblings[r]].max() for r in rows] for name, share in shares.items()}
    assert (lead["id"] > lead["text"]).all(), "within a cluster the text cannot decide"


@pytest.mark.parametrize(
    "options",
    [
        {"adapter": "mlp", "hidden": 16},
        {"adapter": "frozen", "transform": "whiten", "components": 6, "id_axes": 10, "gate": False},
        {"adapter": "frozen", "transform": "whiten", "components": 8, "id_init": "zero", "gate": False, "scale": 3.0},
        {"head": "free", "transform": "zca"},
        {"temperature": 0.1, "gate": False},
        {"average": 0.9, "smoothing": 0.1},
        {"signal_dropout": 0.3, "gate_presence": True, "transform": "unit"},
    ],
    ids=["mlp", "null-space", "residual", "free head", "cosine", "averaged and smoothed", "signal dropout"],
)
def test_every_form_knows_both(planted: World, options: dict[str, object]) -> None:
    ranker = fit(planted, {"text": planted.text}, **options)
    assert warm_accuracy(planted, ranker) > 0.9 and cold_accuracy(planted, ranker) > 0.9
    every = np.arange(len(planted.cluster))
    np.testing.assert_allclose(sum(ranker.shares(queries(planted), every).values()), ranker.score(queries(planted), every), atol=1e-3)
