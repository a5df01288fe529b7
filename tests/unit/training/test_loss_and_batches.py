import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recsys import losses
from recsys.losses import GbceLoss, SampledSoftmaxLoss, SoftmaxLoss, catalogue_loss, chosen_logits, generalised_bce, softmax_cross_entropy, uniform_negatives
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


@pytest.mark.parametrize("gather_from", [0, 10**9])
def test_chosen_logits_equal_the_slow_reference_in_value_and_gradient(gather_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_GATHER_FROM", gather_from)
    monkeypatch.setattr(losses, "_BLOCK", 200)  # several blocks
    torch.manual_seed(0)
    h, e = torch.randn(50, 4, dtype=torch.float64, requires_grad=True), torch.randn(30, 4, dtype=torch.float64, requires_grad=True)
    chosen = torch.randint(0, 30, (50, 9))  # with repeats within a row
    weights = torch.randn(50, 9, dtype=torch.float64)
    ours, reference = chosen_logits(h, e, chosen), (h @ e.T).gather(1, chosen)
    torch.testing.assert_close(ours, reference)
    torch.testing.assert_close(torch.autograd.grad((ours * weights).sum(), (h, e)), torch.autograd.grad((reference * weights).sum(), (h, e)))


def test_the_block_size_changes_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    h, e, t = (
        torch.randn(70, 5, dtype=torch.float64, requires_grad=True),
        torch.randn(11, 5, dtype=torch.float64, requires_grad=True),
        torch.randint(0, 11, (70,)),
    )
    whole = torch.autograd.grad(softmax_cross_entropy(h, e, t), (h, e))
    monkeypatch.setattr(losses, "_BLOCK", 33)
    torch.testing.assert_close(torch.autograd.grad(softmax_cross_entropy(h, e, t), (h, e)), whole)


def test_negatives_are_uniform_over_all_but_the_target() -> None:
    torch.manual_seed(0)
    targets = torch.tensor([0, 2, 4])
    drawn = uniform_negatives(targets, 5, 40_000)
    for row, target in zip(drawn, targets.tolist(), strict=True):
        counts = torch.bincount(row, minlength=5)
        assert counts[target] == 0
        # 4 standard deviations of a binomial with p = 1/4
        others = counts[torch.arange(5) != target]
        assert (others - 10_000).abs().max() < 4 * (40_000 * 0.25 * 0.75) ** 0.5


def test_gbce_without_calibration_and_one_negative_is_binary_cross_entropy() -> None:
    logits = torch.tensor([[1.5, -0.3], [-2.0, 0.7]], dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(generalised_bce(logits, 100, 0.0), expected)


def test_gbce_equals_the_formula_of_the_paper() -> None:
    """Eq. 11 and 12 written out for k = 2 negatives of 9 candidates: a = 2 / 8, t = 0.75, so beta = 0.25 (0.75 * -3 + 4) = 0.4375."""
    logits = torch.tensor([[0.8, -1.0, 0.4]], dtype=torch.float64)
    p = torch.sigmoid(logits[0])
    expected = -(torch.log(p[0] ** 0.4375) + torch.log(1 - p[1]) + torch.log(1 - p[2])) / 3
    torch.testing.assert_close(generalised_bce(logits, 9, 0.75), expected)


def test_gbce_is_finite_where_the_power_of_the_probability_underflows() -> None:
    logits = torch.tensor([[-300.0, 300.0]], requires_grad=True)
    loss = generalised_bce(logits, 10, 0.75)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


def test_sampled_softmax_with_every_other_candidate_once_is_the_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    h, e, t = torch.randn(6, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0])
    others = torch.stack([torch.tensor([j for j in range(5) if j != target]) for target in t.tolist()])
    monkeypatch.setattr(losses, "uniform_negatives", lambda targets, n, count: others)
    torch.testing.assert_close(catalogue_loss(SampledSoftmaxLoss(negatives=4), h, e, t), catalogue_loss(SoftmaxLoss(), h, e, t))


@pytest.mark.parametrize("config", [SoftmaxLoss(), SampledSoftmaxLoss(), GbceLoss()])
def test_a_loss_without_positions_is_an_error(config: SoftmaxLoss | SampledSoftmaxLoss | GbceLoss) -> None:
    with pytest.raises(ValueError, match="at least one valid position"):
        catalogue_loss(config, torch.zeros(0, 3), torch.zeros(5, 3), torch.zeros(0, dtype=torch.int64))


def test_parts_of_a_step_are_padded_apart_and_every_step_has_the_asked_number_of_windows() -> None:
    rows = [np.arange(n) for n in (3, 4, 9, 10, 17, 18, 40, 51)]
    steps = list(next_item_batches(rows, max_length=50, batch_size=4, seed=1, epoch=1))
    assert [sum(len(part.inputs) for part in step) for step in steps] == [4, 4]
    widths = sorted(part.inputs.shape[1] for step in steps for part in step)
    assert widths[0] <= 8 and widths[-1] == 50


def test_batches_follow_from_seed_and_epoch_alone() -> None:
    rows = [np.arange(n) for n in range(2, 40)]

    def taken(seed: int, epoch: int) -> list[list[int]]:
        return [part.inputs.ravel().tolist() for step in next_item_batches(rows, max_length=10, batch_size=5, seed=seed, epoch=epoch) for part in step]

    assert taken(0, 3) == taken(0, 3)
    assert taken(0, 3) != taken(0, 4) and taken(0, 3) != taken(1, 3)
