"""The contrastive loss against a loop, the temperature, and hard negatives."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recsys.training.contrastive import ContrastiveConfig, Temperature, contrastive_loss, nearest_strangers


def slow_loss(vectors: Tensor, anchors: list[int], partners: list[int], together: np.ndarray, scale: Tensor, symmetric: bool) -> Tensor:
    """One pair and one candidate at a time."""
    terms = []
    for first, second in zip(anchors, partners, strict=True):
        for anchor, partner in ((first, second), (second, first)) if symmetric else ((first, second),):
            positive = torch.exp(scale * torch.dot(vectors[anchor], vectors[partner]))
            total = positive
            for item in range(len(vectors)):
                if item not in (anchor, partner) and not together[anchor, item]:
                    total = total + torch.exp(scale * torch.dot(vectors[anchor], vectors[item]))
            terms.append(-torch.log(positive / total))
    return torch.stack(terms).mean()


def unit(rows: int, dim: int, seed: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), dim=1)


@given(st.integers(2, 9), st.integers(1, 12), st.booleans(), st.integers(0, 2**20))
def test_value_and_gradient_equal_the_loop(rows: int, pairs: int, symmetric: bool, seed: int) -> None:
    generator = np.random.default_rng(seed)
    anchors = generator.integers(0, rows, pairs)
    partners = (anchors + generator.integers(1, rows, pairs)) % rows
    together = generator.random((rows, rows)) < 0.3
    together |= together.T
    # Those of a batch are known pairs, as in training.
    together[anchors, partners] = together[partners, anchors] = True
    scale = torch.tensor(7.0, dtype=torch.float64)
    found, expected = unit(rows, 5, seed).requires_grad_(), unit(rows, 5, seed).requires_grad_()
    fast_scale, slow_scale = scale.clone().requires_grad_(), scale.clone().requires_grad_()
    fast = contrastive_loss(found, torch.from_numpy(anchors), torch.from_numpy(partners), torch.from_numpy(together), fast_scale, symmetric=symmetric)
    slow = slow_loss(expected, anchors.tolist(), partners.tolist(), together, slow_scale, symmetric)
    fast.backward()
    slow.backward()
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(fast_scale.grad, slow_scale.grad, rtol=1e-9, atol=1e-12)


def test_known_answer() -> None:
    """Three orthogonal items, one pair: the positive has cosine 0, so has the one negative; log 2. As a known pair it is none: 0."""
    vectors, none = torch.eye(3), torch.zeros(3, 3, dtype=torch.bool)
    anchors, partners = torch.tensor([0]), torch.tensor([1])
    assert contrastive_loss(vectors, anchors, partners, none, 20.0).item() == pytest.approx(math.log(2))
    known = none.clone()
    known[0, 2] = known[2, 0] = True
    assert contrastive_loss(vectors, anchors, partners, known, 20.0, symmetric=False).item() == pytest.approx(0)


def test_a_pair_that_comes_twice_weighs_twice_and_adds_no_negative() -> None:
    vectors = unit(4, 3, 0)
    none = torch.zeros(4, 4, dtype=torch.bool)
    once = contrastive_loss(vectors, torch.tensor([0]), torch.tensor([1]), none, 5.0)
    other = contrastive_loss(vectors, torch.tensor([2]), torch.tensor([3]), none, 5.0)
    both = contrastive_loss(vectors, torch.tensor([0, 0, 2]), torch.tensor([1, 1, 3]), none, 5.0)
    assert both.item() == pytest.approx((2 * once.item() + other.item()) / 3)


def test_rows_in_another_order_give_the_same() -> None:
    vectors, order = unit(6, 3, 1), torch.tensor([4, 2, 0, 5, 1, 3])
    together = torch.zeros(6, 6, dtype=torch.bool)
    together[0, 3] = together[3, 0] = True
    anchors, partners = torch.tensor([0, 1]), torch.tensor([2, 5])
    place = torch.argsort(order)
    moved = contrastive_loss(vectors[order], place[anchors], place[partners], together[order][:, order], 5.0)
    torch.testing.assert_close(moved, contrastive_loss(vectors, anchors, partners, together, 5.0))


def test_bad_input() -> None:
    none = torch.zeros(2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="at least one pair"):
        contrastive_loss(torch.eye(2), torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64), none, 1.0)
    with pytest.raises(ValueError, match="two items"):
        contrastive_loss(torch.eye(2), torch.tensor([1]), torch.tensor([1]), none, 1.0)
    with pytest.raises(ValueError, match="together"):
        contrastive_loss(torch.eye(3), torch.tensor([0]), torch.tensor([1]), none, 1.0)


def test_temperature_fixed_learned_and_bounded() -> None:
    assert Temperature(ContrastiveConfig(temperature=0.05))().item() == pytest.approx(20)
    assert not Temperature(ContrastiveConfig()).log_scale.requires_grad
    learned = Temperature(ContrastiveConfig(temperature=0.1, learn_temperature=True))
    learned().backward()
    assert learned.log_scale.grad is not None and learned.log_scale.grad.item() == pytest.approx(10, rel=1e-5)
    assert Temperature(ContrastiveConfig(temperature=1e-6))().item() == pytest.approx(100)


def test_nearest_strangers_equal_the_loop() -> None:
    vectors = unit(700, 4, 3).float()
    pairs = sp.random_array((700, 700), density=0.05, rng=np.random.default_rng(0), dtype=np.float64)
    matrix = sp.csr_array((pairs + pairs.T) > 0)
    found = nearest_strangers(vectors, matrix, 5)
    dense, scores = matrix.toarray(), (vectors @ vectors.T).numpy()
    for item in (0, 1, 511, 512, 699):
        allowed = [other for other in np.argsort(-scores[item], kind="stable").tolist() if other != item and not dense[item, other]]
        assert found[item].tolist() == allowed[:5]


def test_few_strangers_repeat_and_none_is_an_error() -> None:
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), dim=1)
    pairs = sp.csr_array(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=bool))
    assert nearest_strangers(vectors, pairs, 2).tolist() == [[2, 2], [2, 2], [1, 0]]
    everyone = sp.csr_array(~np.eye(3, dtype=bool))
    with pytest.raises(ValueError, match="item_num 0 is a pair with every other item"):
        nearest_strangers(vectors, everyone, 2)
