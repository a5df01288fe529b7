"""What becomes of the edges before a layer reads them: the rules of loops and duplicates, and each kind's weights by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recsys.errors import DataError
from recsys.graph.messages import Kind, Messages, tidied


def edges(*pairs: tuple[int, int]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T


def as_dict(messages: Messages) -> dict[tuple[int, int], float]:
    return {(a, b): round(w, 6) for (a, b), w in zip(messages.edge_index.T.tolist(), messages.weights.tolist(), strict=True)}


def test_a_duplicate_keeps_the_larger_weight_and_a_loop_goes() -> None:
    index, weights = tidied(edges((0, 1), (2, 2), (1, 0), (0, 1)), torch.tensor([1.0, 9.0, 2.0, 3.0]), 3)
    assert index.T.tolist() == [[1, 0], [0, 1]]  # by target
    assert weights.tolist() == [2.0, 3.0]


def test_tidy_edges_come_back_as_they_were() -> None:
    index, weights = tidied(edges((0, 1), (2, 1), (0, 2)), None, 3)
    again, same = tidied(index, weights, 3)
    assert again is index and same is weights and weights.tolist() == [1.0, 1.0, 1.0]


def test_the_weights_of_each_kind_by_hand() -> None:
    # 0 <-> 1 of weight 3, 2 -> 1 of weight 1; what comes in: 3, 4, 0 and with loops 4, 5, 1
    graph = edges((0, 1), (1, 0), (2, 1)), torch.tensor([3.0, 3.0, 1.0])
    half = 1 / 2
    assert as_dict(Messages.of("lightgcn", *graph, 3)) == {
        (1, 0): round(3 / 12**half, 6),
        (0, 1): round(3 / 12**half, 6),
        (2, 1): round(1 / 4**half, 6),
    }
    assert as_dict(Messages.of("gcn", *graph, 3)) == {
        (0, 0): 0.25,
        (1, 0): round(3 / 20**half, 6),
        (0, 1): round(3 / 20**half, 6),
        (1, 1): 0.2,
        (2, 1): round(1 / 5**half, 6),
        (2, 2): 1.0,
    }
    assert as_dict(Messages.of("sage", *graph, 3)) == {(1, 0): 1.0, (0, 1): 0.75, (2, 1): 0.25}
    assert as_dict(Messages.of("gat", *graph, 3)) == {(0, 0): 1, (1, 0): 3, (0, 1): 3, (1, 1): 1, (2, 1): 1, (2, 2): 1}
    assert as_dict(Messages.of("mlp", *graph, 3)) == {}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30), st.sampled_from(["gcn", "sage", "gat", "lightgcn"]), st.randoms())
def test_writing_edges_twice_in_another_order_with_loops_changes_nothing(pairs: list[tuple[int, int]], kind: Kind, random: object) -> None:
    twice = [*pairs, *pairs, (3, 3)]
    random.shuffle(twice)  # type: ignore[attr-defined]
    once, again = Messages.of(kind, edges(*pairs), None, 6), Messages.of(kind, edges(*twice), None, 6)
    torch.testing.assert_close(once.edge_index, again.edge_index)
    torch.testing.assert_close(once.weights, again.weights)
    assert bool(torch.isfinite(once.weights).all())
    assert bool((once.edge_index[0] == once.edge_index[1]).any()) == (kind in ("gcn", "gat"))


@pytest.mark.parametrize(
    ("index", "weights", "words"),
    [
        (torch.zeros(3, 2, dtype=torch.int64), None, r"int64 \(2, E\) is needed, got torch.int64 \(3, 2\)"),
        (torch.zeros(2, 2), None, "int64"),
        (edges((0, 3)), None, "the nodes 0 to 3; the graph has 0 to 2"),
        (edges((-1, 0)), None, "the nodes -1 to 0"),
        (edges((0, 1)), torch.ones(2), "one an edge"),
        (edges((0, 1)), torch.ones(1, dtype=torch.int64), "float"),
        (edges((0, 1)), torch.tensor([0.0]), "positive"),
        (edges((0, 1)), torch.tensor([-1.0]), "positive"),
        (edges((0, 1)), torch.tensor([float("nan")]), "finite"),
    ],
)
def test_edges_that_are_none_are_refused(index: Tensor, weights: Tensor | None, words: str) -> None:
    with pytest.raises(DataError, match=words):
        tidied(index, weights, 3)
