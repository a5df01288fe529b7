"""Relations added up to one graph, what is left of an item that nobody met, and the features of nodes that are no item."""

import pytest
import torch
from torch_geometric.data import HeteroData

from recsys.errors import ConfigError, DataError
from recsys.graph.flat import FlatGraph, flatten
from recsys.graph.layers import GnnConfig


@pytest.fixture
def data() -> HeteroData:
    """Three items, two users, one value. meets 0-1; reads alike 0-1 and 1-2; u0: 0, 1; u1: 1; value: 0 and 2."""
    data = HeteroData()
    data["user"].num_nodes, data["item"].num_nodes, data["year"].num_nodes = 2, 3, 1

    def add(kind: tuple[str, str, str], *edges: tuple[int, int, float]) -> None:
        data[kind].edge_index = torch.tensor([edge[:2] for edge in edges]).T
        data[kind].edge_weight = torch.tensor([float(edge[2]) for edge in edges])

    add(("user", "interacts", "item"), (0, 0, 1), (0, 1, 1), (1, 1, 1))
    add(("item", "meets", "item"), (0, 1, 0.02), (1, 0, 0.02))
    add(("item", "reads_like_t", "item"), (0, 1, 0.2), (1, 0, 0.2), (1, 2, 0.6), (2, 1, 0.6))
    add(("item", "has", "year"), (0, 0, 0.5), (2, 0, 0.5))
    return data


def as_dict(graph: FlatGraph, weights: torch.Tensor) -> dict[tuple[int, int], float]:
    return {(a, b): pytest.approx(w) for (a, b), w in zip(graph.edge_index.T.tolist(), weights.tolist(), strict=True)}


def both(**edges: float) -> dict[tuple[int, int], float]:
    found = {}
    for name, weight in edges.items():
        a, b = int(name[1]), int(name[2])
        found |= {(a, b): weight, (b, a): weight}
    return found


def test_items_and_values_by_hand(data: HeteroData) -> None:
    graph = flatten(data, users=False)
    assert graph.starts == {"item": 0, "year": 3} and graph.n_nodes == 4 and graph.n_items == 3
    # means: meets 0.02, reads 0.4, has 0.5
    assert as_dict(graph, graph.weights) == both(e01=1 + 0.5, e12=1.5, e03=1, e23=1)
    assert as_dict(graph, graph.lasting) == both(e01=0.5, e12=1.5, e03=1, e23=1)
    assert graph.scales == pytest.approx({"meets": 50, "reads_like_t": 2.5, "has": 2})


def test_users_and_factors_by_hand(data: HeteroData) -> None:
    graph = flatten(data, users=True, relations={"reads_like_t": 0, "meets": 3})
    assert graph.starts == {"item": 0, "user": 3, "year": 5} and graph.n_nodes == 6
    assert as_dict(graph, graph.weights) == both(e03=1, e13=1, e14=1, e01=3, e05=1, e25=1)
    assert as_dict(graph, graph.lasting) == both(e03=0, e13=0, e14=0, e01=0, e05=1, e25=1)


def test_an_item_that_is_taken_for_new_keeps_what_lasts(data: HeteroData) -> None:
    graph, config = flatten(data, users=True), GnnConfig(kind="gat")
    cold = torch.zeros(6, dtype=torch.bool)
    cold[0] = True
    messages = graph.messages(config, cold)
    kept = {(a, b): w for (a, b), w in zip(messages.edge_index.T.tolist(), messages.weights.tolist(), strict=True) if a != b}
    assert kept == {pair: pytest.approx(w) for pair, w in both(e01=0.5, e12=1.5, e05=1, e25=1, e13=1, e14=1).items()}


def test_other_nodes_are_the_mean_of_their_items(data: HeteroData) -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 0.0], [3.0, 4.0]])  # item 1 has no text
    graph = flatten(data, users=True)
    expected = torch.tensor([[1.0, 0.0], [0.0, 0.0], [3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [2.0, 2.0]])
    torch.testing.assert_close(graph.averages(features), expected)


def test_relations_that_are_not_there_are_refused(data: HeteroData) -> None:
    with pytest.raises(ConfigError, match="the graph has no likes; it has: has, interacts, meets, reads_like_t"):
        flatten(data, users=False, relations={"likes": 1.0})
    with pytest.raises(DataError, match="no edge between items"):
        flatten(data, users=False, relations={"has": 0, "meets": 0, "reads_like_t": 0})
