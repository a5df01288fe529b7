"""A drawn neighbourhood: exact where all is taken, true on average where it is not."""

import pytest
import torch
from torch import Tensor

from recsys.graph.layers import Gnn, GnnConfig
from recsys.graph.messages import Messages
from recsys.graph.sampling import NeighbourSampler

N = 40


def graph(seed: int = 0, edges: int = 200) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(N, (2, edges), generator=generator)
    return index, torch.rand(edges, generator=generator, dtype=torch.float64) + 0.1


def model_of(kind: str, layers: int = 2) -> Gnn:
    torch.manual_seed(1)
    return Gnn(GnnConfig.parse({"kind": kind, "layers": layers, "hidden": 8}), 4, 3).double().eval()


@pytest.mark.parametrize("kind", ["gcn", "sage", "gat", "lightgcn"])
@pytest.mark.parametrize("fanouts", [(None, None), (N + 1, N + 1)])
def test_all_neighbours_give_the_vectors_of_the_whole_graph(kind: str, fanouts: tuple[int | None, ...]) -> None:
    model, x = model_of(kind), torch.randn(N, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    messages = model.messages(*graph(), N)
    seeds = torch.tensor([7, 3, 31])
    piece, nodes = NeighbourSampler(messages).sample(seeds, fanouts)
    assert nodes[:3].tolist() == seeds.tolist() and len(nodes) == len(nodes.unique()) == piece.n_nodes
    whole, ours = model.propagate(x, messages)[seeds], model.propagate(x[nodes], piece)[:3]
    torch.testing.assert_close(ours, whole)
    torch.testing.assert_close(torch.autograd.grad(ours.square().sum(), x)[0], torch.autograd.grad(whole.square().sum(), x)[0])


def test_few_neighbours_by_hand() -> None:
    # 1..6 -> 0, and nothing else; two of six are drawn, each weighed by three.
    index = torch.stack([torch.arange(1, 7), torch.zeros(6, dtype=torch.int64)])
    messages = Messages.of("sage", index, None, 7)
    piece, nodes = NeighbourSampler(messages).sample(torch.tensor([0]), (2, 2))
    assert piece.edge_index.shape == (2, 2) and len(nodes) == 3
    torch.testing.assert_close(piece.weights, torch.full((2,), 3 / 6))
    # With a loop: it stays as it is, and one of the six others is drawn.
    piece, nodes = NeighbourSampler(Messages.of("gcn", index, None, 7)).sample(torch.tensor([0]), (2,))
    loop = nodes[piece.edge_index[0]] == 0
    torch.testing.assert_close(piece.weights[loop], torch.tensor([1 / 7]))
    torch.testing.assert_close(piece.weights[~loop], torch.tensor([6 / 7**0.5]))


@pytest.mark.parametrize("kind", ["gcn", "sage", "lightgcn"])
def test_the_mean_of_many_draws_is_the_sum_of_all(kind: str) -> None:
    """One layer is linear in its messages."""
    model, x = model_of(kind, layers=1), torch.randn(N, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    messages = model.messages(*graph(edges=400), N)
    sampler, seeds = NeighbourSampler(messages), torch.arange(5)
    torch.manual_seed(3)
    draws = []
    for _ in range(600):
        piece, nodes = sampler.sample(seeds, (3,))
        draws.append(model.propagate(x[nodes], piece)[:5])
    stacked = torch.stack(draws)
    whole = model.propagate(x, messages)[:5]
    error = stacked.std(0) / len(draws) ** 0.5
    assert bool(((stacked.mean(0) - whole).abs() < 5 * error + 1e-9).all())
    assert bool((stacked.std(0) > 1e-3).any())


def test_no_neighbour_comes_twice_and_equal_seeds_draw_alike() -> None:
    sampler = NeighbourSampler(Messages.of("sage", *graph(edges=600), N))
    pieces = []
    for _ in range(2):
        torch.manual_seed(4)
        piece, nodes = sampler.sample(torch.arange(10), (3, 2))
        pieces.append((piece, nodes))
        codes = piece.edge_index[1] * piece.n_nodes + piece.edge_index[0]
        assert bool((codes[1:] > codes[:-1]).all())
        assert int(torch.bincount(piece.edge_index[1])[:10].max()) <= 3
    torch.testing.assert_close(pieces[0][0].edge_index, pieces[1][0].edge_index)
    torch.testing.assert_close(pieces[0][1], pieces[1][1])
