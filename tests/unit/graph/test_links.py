"""What is learned from which: the links of an epoch by hand, and the losses against plain sums."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recsys.data.sequences import Sequences
from recsys.errors import ConfigError, DataError
from recsys.graph.config import LinkConfig
from recsys.graph.links import Links, drawn_candidates, link_loss


def rows_of(*rows: list[int]) -> Sequences:
    return Sequences.of_rows([np.array(row, dtype=np.int64) for row in rows])


def all_links(links: Links, batch_size: int) -> list[tuple[tuple[int, ...], int]]:
    found = []
    for batch in links.of_epoch(batch_size):
        ends = [*batch.offsets.tolist()[1:], len(batch.members)]
        for start, end, target in zip(batch.offsets.tolist(), ends, batch.targets.tolist(), strict=True):
            found.append((tuple(batch.members[start:end].tolist()), target))
    return sorted(found)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_each_interaction_follows_the_items_before_it(batch_size: int) -> None:
    links = Links(rows_of([5, 6, 7, 8], [9], [], [1, 1]), history=2)
    assert len(links) == 4
    assert all_links(links, batch_size) == [((1,), 1), ((5,), 6), ((5, 6), 7), ((6, 7), 8)]


def test_each_pair_of_a_user_node_comes_once() -> None:
    links = Links(rows_of([5, 6, 5], [], [5]), history=2, users_from=100)
    assert all_links(links, 2) == [((100,), 5), ((100,), 6), ((102,), 5)]


def test_no_link_is_an_error() -> None:
    with pytest.raises(DataError, match="no user of training has two interactions"):
        Links(rows_of([1], [2]), history=3)
    with pytest.raises(DataError, match="no interaction"):
        Links(rows_of([], []), history=3, users_from=0)


def test_candidates_hold_the_targets() -> None:
    known, targets = torch.arange(0, 100, 2), torch.tensor([8, 8, 98, 0])
    assert drawn_candidates(LinkConfig(negatives=50), known, targets) is known
    for config in (LinkConfig(negatives=5), LinkConfig(loss="bpr")):
        found = drawn_candidates(config, known, targets)
        assert set(targets.tolist()) <= set(found.tolist()) <= set(known.tolist())
        assert found.tolist() == sorted(set(found.tolist())) and len(found) <= 9


@pytest.mark.parametrize("popularity", [0.0, 0.5])
@pytest.mark.parametrize("cosine", [True, False])
def test_softmax_equals_cross_entropy(popularity: float, cosine: bool) -> None:
    torch.manual_seed(0)
    users, candidates = torch.randn(6, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    targets, counts = torch.randint(9, (6,)), torch.randint(1, 50, (9,))
    config = LinkConfig(popularity=popularity, cosine=cosine, temperature=0.3)
    ours = link_loss(config, users, candidates, targets, counts)
    logits = (F.normalize(users) if cosine else users) @ candidates.T / 0.3 + popularity * counts.log()
    theirs = F.cross_entropy(logits, targets)
    torch.testing.assert_close(ours, theirs)
    for mine, wanted in zip(torch.autograd.grad(ours, [users, candidates]), torch.autograd.grad(theirs, [users, candidates]), strict=True):
        torch.testing.assert_close(mine, wanted)


def test_bpr_against_the_only_other_item() -> None:
    users, candidates = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    config = LinkConfig(loss="bpr", cosine=False, temperature=0.5)
    for target, margin in ((0, -1.0), (1, 1.0)):
        loss = link_loss(config, users, candidates, torch.tensor([target]), torch.ones(2))
        torch.testing.assert_close(loss, torch.tensor(np.log1p(np.exp(-margin / 0.5)), dtype=torch.float32))


def test_windows_of_histories_are_no_option() -> None:
    with pytest.raises(ConfigError, match="links have none"):
        LinkConfig.parse({"training": {"sort_by_length": True}})
