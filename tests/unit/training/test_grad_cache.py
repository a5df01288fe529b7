"""Two passes give the value and the gradient of one."""

import pytest
import torch
from torch import Tensor, nn

from recsys.training.contrastive import ContrastiveConfig, Temperature, contrastive_loss
from recsys.training.grad_cache import backward_in_chunks


class Encoder(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.first, self.second, self.dropout = nn.Linear(6, 16), nn.Linear(16, 4), nn.Dropout(dropout)
        self.held, self.longest = 0, 0

    def forward(self, rows: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            # Rows whose graphs are alive at once: a graph ends with its backward pass through the first layer.
            self.held += len(rows)
            self.longest = max(self.longest, self.held)
            rows = rows.clone().requires_grad_()
            rows.register_hook(lambda gradient: self._released(len(gradient)))
        return nn.functional.normalize(self.second(self.dropout(self.first(rows).relu())), dim=1)

    def _released(self, rows: int) -> None:
        self.held -= rows


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_value_and_gradient_equal_the_plain_loss(dropout: float, size: int, cached: bool) -> None:
    torch.manual_seed(0)
    encoder, temperature = Encoder(dropout).double(), Temperature(ContrastiveConfig(learn_temperature=True)).double()
    rows = torch.randn(20, 6, dtype=torch.float64)
    anchors, partners = torch.arange(0, 20, 2), torch.arange(1, 20, 2)

    def loss(vectors: Tensor) -> Tensor:
        return contrastive_loss(vectors, anchors, partners, torch.zeros(20, 20, dtype=torch.bool), temperature())

    chunks = rows.split(size)
    parameters = [*encoder.parameters(), *temperature.parameters()]
    torch.manual_seed(1)
    plain = loss(torch.cat([encoder(chunk) for chunk in chunks]))
    plain.backward()
    expected, after = [p.grad.clone() for p in parameters if p.grad is not None], torch.get_rng_state()
    for parameter in parameters:
        parameter.grad = None
    encoder.held = encoder.longest = 0
    torch.manual_seed(1)
    value = backward_in_chunks(encoder, chunks, loss, cached=cached)
    assert value == pytest.approx(plain.item(), abs=1e-12)
    assert len(expected) == 5
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.get_rng_state(), after)
    assert encoder.longest == (min(size, 20) if cached else 20), "with caching no more than one chunk"


def test_gradients_add_up_as_those_of_backward_do() -> None:
    encoder = Encoder(0.0)
    rows = torch.randn(4, 6)
    backward_in_chunks(encoder, rows.split(2), lambda v: v.square().sum() + v.sum())
    once = encoder.first.weight.grad.clone()
    backward_in_chunks(encoder, rows.split(2), lambda v: v.square().sum() + v.sum())
    torch.testing.assert_close(encoder.first.weight.grad, 2 * once)
