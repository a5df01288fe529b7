"""Each layer against dense matrices and against torch-geometric, values and gradients; order of nodes and edges; pieces of a graph."""

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GATConv, GCNConv, LGConv, SAGEConv

from recsys.errors import ConfigError, DataError
from recsys.graph.layers import Gnn, GnnConfig
from recsys.graph.messages import Messages

N, K, D = 7, 5, 3
KINDS = ("gcn", "sage", "gat", "lightgcn")
# Directed and undirected, a duplicate (0, 1), a loop (4, 4), node 6 alone.
EDGES = torch.tensor([(0, 1), (1, 0), (0, 1), (1, 2), (2, 1), (3, 2), (4, 4), (4, 5), (5, 4), (5, 0), (2, 5)]).T
WEIGHTS = torch.tensor([2.0, 2.0, 1.0, 0.5, 0.5, 1.5, 7.0, 1.0, 3.0, 0.25, 1.0], dtype=torch.float64)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, K, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()


def gnn(kind: str, *, inputs: int = K, mapped: bool = True, **options: object) -> Gnn:
    torch.manual_seed(5)
    defaults = {"layers": 2, "hidden": 8} | ({"heads": 2} if kind == "gat" else {})
    return Gnn(GnnConfig.parse({"kind": kind} | defaults | options), inputs, D, mapped=mapped).double().eval()


def adjacency(weights: Tensor = WEIGHTS) -> Tensor:
    """A[target, source], duplicates by the larger weight, no loops."""
    dense = torch.zeros(N, N, dtype=torch.float64)
    for (source, target), weight in zip(EDGES.T.tolist(), weights.tolist(), strict=True):
        if source != target:
            dense[target, source] = max(float(dense[target, source]), weight)
    return dense


def inverse_root(sums: Tensor) -> Tensor:
    return torch.where(sums > 0, sums, 1.0).rsqrt().diag()


def dense_gcn(model: Gnn, x: Tensor) -> Tensor:
    A = adjacency() + torch.eye(N)
    smooth = inverse_root(A.sum(1)) @ A @ inverse_root(A.sum(1))
    first, second = model.layers
    hidden = torch.relu(smooth @ x @ first.lin.weight.T + first.bias)
    return smooth @ hidden @ second.lin.weight.T + second.bias


def dense_sage(model: Gnn, x: Tensor) -> Tensor:
    A = adjacency()
    mean = A / torch.where(A.sum(1) > 0, A.sum(1), 1.0)[:, None]
    for number, layer in enumerate(model.layers):
        x = mean @ x @ layer.lin_rel.weight.T + layer.lin_rel.bias + x @ layer.lin_root.weight.T
        x = torch.relu(x) if number == 0 else x
    return x


def dense_lightgcn(model: Gnn, x: Tensor) -> Tensor:
    A = adjacency()
    smooth = inverse_root(A.sum(1)) @ A @ inverse_root(A.sum(1))
    first = x @ model.map.weight.T + model.map.bias
    return (first + smooth @ first + smooth @ smooth @ first) / 3


def dense_gat(model: Gnn, x: Tensor) -> Tensor:
    """Eq. 3 of the paper with the weight as a feature of the edge, over A + I."""
    A = adjacency() + torch.eye(N)
    for number, layer in enumerate(model.layers):
        heads = []
        width = layer.out_channels
        for head in range(layer.heads):
            rows = slice(head * width, (head + 1) * width)
            h = x @ layer.lin.weight[rows].T
            logits = (h @ layer.att_dst[0, head])[:, None] + (h @ layer.att_src[0, head])[None, :]
            logits = logits + A * (layer.lin_edge.weight[rows, 0] @ layer.att_edge[0, head])
            logits = torch.nn.functional.leaky_relu(logits, 0.2).masked_fill(A == 0, -torch.inf)
            heads.append(torch.softmax(logits, dim=1) @ h)
        x = torch.relu(torch.cat(heads, dim=1) + layer.bias) if number == 0 else torch.stack(heads).mean(0) + layer.bias
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_equals_dense_matrices_in_values_and_gradients(kind: str, x: Tensor) -> None:
    model = gnn(kind)
    dense = {"gcn": dense_gcn, "sage": dense_sage, "lightgcn": dense_lightgcn, "gat": dense_gat}[kind](model, x)
    ours = model(x, EDGES, WEIGHTS)
    torch.testing.assert_close(ours, dense)
    pull = torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    wanted = torch.autograd.grad((dense * pull).sum(), [x, *model.parameters()])
    got = torch.autograd.grad((ours * pull).sum(), [x, *model.parameters()])
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_may_have_a_gradient(kind: str, x: Tensor) -> None:
    """As an edge predictor's has; without one the sparse product is taken, and it tells the same."""
    model, distinct = gnn(kind), torch.tensor([0, 1, 3, 4, 5, 7, 8, 9, 10])
    learned = WEIGHTS[distinct].clone().requires_grad_()

    def total(weights: Tensor) -> Tensor:
        return model(x, EDGES[:, distinct], weights).square().sum()

    torch.testing.assert_close(total(learned), total(learned.detach()))
    assert torch.autograd.gradcheck(total, learned)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_torch_geometric_on_an_undirected_graph_without_weights(kind: str) -> None:
    x = torch.randn(N, K, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    index = torch.tensor([(0, 1), (1, 2), (2, 3), (3, 0), (4, 5)]).T
    index = torch.cat([index, index.flip(0)], dim=1)
    model = gnn(kind, layers=1)
    layer = model.layers[0]
    theirs: torch.nn.Module
    if kind == "gcn":
        theirs = GCNConv(K, D).double()
        theirs.load_state_dict(layer.state_dict())
        torch.testing.assert_close(model(x, index), theirs(x, index))
    elif kind == "sage":
        theirs = SAGEConv(K, D).double()
        theirs.load_state_dict({"lin_l.weight": layer.lin_rel.weight, "lin_l.bias": layer.lin_rel.bias, "lin_r.weight": layer.lin_root.weight})
        torch.testing.assert_close(model(x, index), theirs(x, index))
    elif kind == "gat":
        theirs = GATConv(K, D, 2, concat=False, edge_dim=1, fill_value=1.0).double()
        theirs.load_state_dict(layer.state_dict())
        torch.testing.assert_close(model(x, index), theirs(x, index, torch.ones(index.shape[1], dtype=torch.float64)))
    else:
        first = model.map(x)
        torch.testing.assert_close(model(x, index), (first + LGConv()(first, index)) / 2)


def test_mlp_looks_at_no_edge(x: Tensor) -> None:
    model = gnn("mlp")
    first, second = model.layers
    torch.testing.assert_close(model(x, EDGES), second(torch.relu(first(x))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_order_of_nodes_and_edges_means_nothing(kind: str, norm: str, x: Tensor) -> None:
    if kind == "lightgcn" and norm != "none":
        return
    model = gnn(kind, norm=norm)
    nodes, edges = torch.randperm(N, generator=torch.Generator().manual_seed(2)), torch.randperm(EDGES.shape[1], generator=torch.Generator().manual_seed(4))
    place = torch.empty_like(nodes)
    place[nodes] = torch.arange(N)
    moved = model(x[nodes], place[EDGES[:, edges]], WEIGHTS[edges])
    torch.testing.assert_close(moved, model(x, EDGES, WEIGHTS)[nodes])


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_sees_as_far_as_there_are_layers(kind: str) -> None:
    """0 - 1 - 2 - 3 - 4: with two layers node 0 hears of 2 and not of 3."""
    model = gnn(kind)
    x = torch.randn(5, K, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    line = torch.tensor([(0, 1), (1, 2), (2, 3), (3, 4)]).T
    model(x, torch.cat([line, line.flip(0)], dim=1))[0].sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(1) > 0).tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_of_a_graph_is_a_graph(kind: str, x: Tensor) -> None:
    model = gnn(kind)
    piece = torch.tensor([4, 5])
    alone = model(x[piece], torch.tensor([[0, 1], [1, 0]]), torch.tensor([1.0, 3.0], dtype=torch.float64))
    assert alone.shape == (2, D) and bool(torch.isfinite(alone).all())
    assert model(x[:1], torch.zeros(2, 0, dtype=torch.int64)).shape == (1, D)


def test_learned_vectors_are_layer_zero_without_a_map() -> None:
    model = gnn("lightgcn", inputs=D, mapped=False, layers=1)
    assert not list(model.parameters())
    # Two nodes: each hears all of the other, and the mean of both layers is the mean of both nodes.
    values = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(model(values, torch.tensor([[0, 1], [1, 0]])), torch.full((2, 3), 2.0, dtype=torch.float64))
    with pytest.raises(DataError, match=r"as wide as its input \(5\), not 3"):
        gnn("lightgcn", mapped=False)


def test_dropout_is_of_training_alone(x: Tensor) -> None:
    model = gnn("gcn", dropout=0.5)
    torch.testing.assert_close(model(x, EDGES), model(x, EDGES), rtol=0, atol=0)
    model.train()
    assert not torch.equal(model(x, EDGES), model(x, EDGES))


def test_rows_that_are_not_the_graphs_are_refused(x: Tensor) -> None:
    model = gnn("gcn")
    with pytest.raises(DataError, match=r"float \(7, 5\) is needed, a row a node, got \(6, 5\)"):
        model.propagate(x[:6], Messages.of("gcn", EDGES, WEIGHTS, N))
    with pytest.raises(DataError, match=r"got \(7, 4\)"):
        model(x[:, :4], EDGES)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "gcn", "heads": 2}, "heads is an option of gat"),
        ({"kind": "gat", "hidden": 9, "heads": 2}, r"hidden \(9\) must be a multiple of heads \(2\)"),
        ({"kind": "lightgcn", "norm": "batch"}, "no layer to normalise"),
        ({"kind": "gin"}, "gcn"),
    ],
)
def test_options_that_contradict_each_other_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GnnConfig.parse(values)
