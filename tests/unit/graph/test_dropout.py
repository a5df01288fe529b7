"""Dropout by sixteen bits an entry: the stated share, the mean kept, by torch's seed."""

from __future__ import annotations

import pytest
import torch

from recsys.graph.dropout import dropout


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.99])
def test_the_share_is_dropped_and_the_mean_is_kept(share: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(401, 1003)
    dropped = dropout(x, share, training=True)
    count = x.numel()
    assert float((dropped == 0).sum()) == pytest.approx(share * count, abs=5 * (count * share * (1 - share)) ** 0.5 + count / 65536)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / (1 - share)])
    # Neighbours and columns are independent of each other.
    held = (dropped > 0).float()
    together = (held[:, 1:] * held[:, :-1]).mean()
    assert float(together) == pytest.approx((1 - share) ** 2, abs=0.005)


def test_nothing_is_dropped_outside_training_or_at_share_0() -> None:
    x = torch.randn(3, 5)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x


def test_it_follows_the_seed_and_the_gradient_is_that_of_what_was_kept() -> None:
    x = torch.randn(7, 3, requires_grad=True)
    torch.manual_seed(1)
    one = dropout(x, 0.4, training=True)
    torch.manual_seed(1)
    two = dropout(x, 0.4, training=True)
    assert torch.equal(one, two)
    one.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.where(one == 0, 0.0, 1 / 0.6).expand_as(x.grad))
