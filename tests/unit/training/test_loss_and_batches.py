import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recsys.losses import softmax_cross_entropy
from recsys.training.batches import PAD, left_padded, next_item_batches


def test_loss_and_gradients_equal_the_slow_reference() -> None:
    torch.manual_seed(0)
    h, e = torch.randn(2100, 5, dtype=torch.float64, requires_grad=True), torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    t = torch.randint(0, 7, (2100,))
    ours, reference = softmax_cross_entropy(h, e, t), F.cross_entropy(h @ e.T, t)
    torch.testing.assert_close(ours, reference)
    torch.testing.assert_close(torch.autograd.grad(3 * ours, (h, e)), torch.autograd.grad(3 * reference, (h, e)))


@pytest.mark.parametrize("sort", [False, True])
def test_each_transition_is_predicted_once_an_epoch(sort: bool) -> None:
    rows = [np.arange(n) + 100 * n for n in (0, 1, 2, 5, 6, 7, 9, 10, 20, 21, 22, 23, 60)]
    for epoch in range(5):
        seen = []
        for batch in itertools.chain(*next_item_batches(rows, max_length=20, batch_size=3, seed=0, epoch=epoch, sort=sort)):
            valid = batch.inputs != PAD
            assert ((batch.targets != PAD) == valid).all()
            seen += list(zip(batch.inputs[valid].tolist(), batch.targets[valid].tolist(), strict=True))
        assert sorted(seen) == sorted((int(a), int(b)) for row in rows for a, b in itertools.pairwise(row))


def test_left_padded() -> None:
    assert left_padded([np.array([1]), np.array([1, 2, 3, 4])], 3).tolist() == [[PAD, PAD, 1], [2, 3, 4]]
