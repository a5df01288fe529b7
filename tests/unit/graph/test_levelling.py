"""New items are given what hiding costs known ones: counted against a slow reference, nothing where hiding costs nothing."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.split import Cases
from recsys.graph.levelling import as_new, new_item_bonus
from recsys.graph.scorer import GraphScorer
from recsys.types import Queries

ITEMS, USERS, NEW = 60, 200, 12


def scorer_of(items: np.ndarray, **more: object) -> GraphScorer:
    return GraphScorer(items, (items != 0).any(axis=1), items.mean(axis=0), history=50, **more)  # type: ignore[arg-type]


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray, Cases]:
    """Vectors of 60 items, the last twelve of them new; cases of known targets, and one of a new one."""
    rng = np.random.default_rng(seed)
    items = rng.standard_normal((ITEMS, 8)).astype(np.float32)
    known = np.arange(ITEMS) < ITEMS - NEW
    rows = [(user, *_history(rng, items, known)) for user in range(USERS)]
    return items, known, Cases.of_rows([*rows, (0, rows[0][1], rows[0][2], ITEMS - 1)])


def _history(rng: np.random.Generator, items: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    target = int(rng.choice(np.flatnonzero(known)))
    near = [item for item in np.argsort(-items @ items[target]).tolist() if known[item] and item != target]
    history = np.array(sorted(rng.choice(near[:15], 3, replace=False).tolist()))
    return history, history, target


def hits(scorer: GraphScorer, vectors: np.ndarray, known: np.ndarray, cases: Cases, bonus: float) -> int:
    """Slowly: how many known targets stand among the first ten known items if their own score is that of `vectors` and the bonus."""
    count = 0
    for row in range(len(cases)):
        target = int(cases.targets[row])
        if not known[target]:
            continue
        state = scorer.represent(Queries(cases.user_nums[row : row + 1], [cases.inputs[row]]))[0]
        others = [float(state @ scorer.items()[i]) for i in range(ITEMS) if known[i] and i != target and i not in cases.seen[row]]
        count += sorted(others, reverse=True)[9] < float(state @ vectors[target]) + bonus
    return count


def test_new_items_are_found_as_often_as_known_ones() -> None:
    items, known, cases = world()
    scorer, new = scorer_of(items), (items * 0.6).astype(np.float32)
    wanted = hits(scorer, items, known, cases, 0.0)
    bonus = new_item_bonus(scorer, new, known, cases)
    assert hits(scorer, new, known, cases, 0.0) < wanted
    assert bonus > 0
    assert hits(scorer, new, known, cases, bonus) == wanted


def test_where_hiding_costs_nothing_nothing_is_given_and_where_it_helps_it_is_taken() -> None:
    items, known, cases = world()
    scorer = scorer_of(items)
    assert new_item_bonus(scorer, items, known, cases) == 0
    assert new_item_bonus(scorer, (items * 2).astype(np.float32), known, cases) < 0
    nobody = Cases.of_rows([])
    assert new_item_bonus(scorer, items, known, nobody) == 0


def test_the_bonus_is_that_of_new_items_alone() -> None:
    items, known, cases = world()
    plain, raised = scorer_of(items), scorer_of(items, new=~known, bonus=0.5)
    queries, nums = cases.queries(), np.arange(ITEMS)
    difference = raised.score(queries, nums) - plain.score(queries, nums)
    np.testing.assert_allclose(difference, np.where(known, 0, 0.5)[None].repeat(len(cases), 0), atol=1e-6)
    out = np.zeros((len(cases), 20), dtype=np.float32)
    raised.score_into(queries, nums[-20:], out)
    np.testing.assert_allclose(out, raised.score(queries, nums[-20:]), atol=1e-6)


@pytest.mark.parametrize("features", ["text", "ids"])
def test_an_item_is_looked_at_without_its_edges_of_interactions(features: str) -> None:
    """Without such edges nothing changes; with them, what changes is what a graph without them says of the item."""
    import torch

    from recsys.graph.config import GraphEncoderConfig
    from recsys.graph.encoders import GraphEncoder
    from recsys.graph.flat import FlatGraph

    torch.manual_seed(0)
    n = 20
    config = GraphEncoderConfig.parse({"features": features, "gnn": {"kind": "sage", "layers": 1, "hidden": 8}, "dim": 8})
    sources, targets = torch.arange(n), (torch.arange(n) + 1) % n
    index = torch.stack([torch.cat([sources, targets]), torch.cat([targets, sources])])
    order = (index[1] * n + index[0]).argsort()
    index, weights = index[:, order], torch.ones(2 * n)
    inputs = torch.randn(n, 5) if features == "text" else torch.ones(n, 1)
    encoder = GraphEncoder(config, n, inputs.shape[1]).eval()
    known = np.ones(n, dtype=np.bool_)
    lasting = FlatGraph({"item": 0}, n, index, weights, weights, {"meets": 1.0})
    with torch.no_grad():
        plain = encoder(inputs, lasting.messages(config.gnn)).numpy()
    if features == "text":
        np.testing.assert_allclose(as_new(encoder, lasting, inputs, known, seed=0), plain, atol=1e-6)
    passing = FlatGraph({"item": 0}, n, index, weights, torch.zeros(2 * n), {"meets": 1.0})
    found = as_new(encoder, passing, inputs, known, seed=0)
    alone = FlatGraph({"item": 0}, n, index[:, :0], weights[:0], weights[:0], {"meets": 1.0})
    with torch.no_grad():
        expected = encoder(inputs if features == "text" else torch.zeros(n, 1), alone.messages(config.gnn)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
