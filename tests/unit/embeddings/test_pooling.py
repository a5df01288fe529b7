import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.embeddings.pooling import Pooling, last_state, masked_mean, pool

NAN = float("nan")
HIDDEN = torch.tensor([[[NAN, NAN], [1.0, 2.0], [3.0, 4.0], [NAN, 9.0]]])
MASK = torch.tensor([[0, 1, 1, 0]])


def test_known_answers() -> None:
    assert masked_mean(HIDDEN, MASK).tolist() == [[2.0, 3.0]] and masked_mean(HIDDEN[:, 1:3], None).tolist() == [[2.0, 3.0]]
    assert last_state(HIDDEN, MASK).tolist() == [[3.0, 4.0]] and last_state(HIDDEN[:, :3], None).tolist() == [[3.0, 4.0]]
    assert pool(HIDDEN.bfloat16(), MASK, "last").dtype == torch.float32


@pytest.mark.parametrize(("pooling", "expected"), [("mean", [0.0, 0.5, 0.5, 0.0]), ("last", [0.0, 0.0, 1.0, 0.0])])
def test_gradients_reach_what_was_pooled_and_nothing_else(pooling: Pooling, expected: list[float]) -> None:
    hidden = HIDDEN.nan_to_num().requires_grad_()
    pool(hidden, MASK, pooling).sum().backward()
    assert hidden.grad is not None and hidden.grad[0, :, 0].tolist() == expected


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.sampled_from(["mean", "last"]))
def test_a_batch_equals_its_rows(lengths: list[int], pooling: Pooling) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(1, length, 3, generator=generator) for length in lengths]
    hidden = torch.full((len(rows), max(lengths) + 1, 3), NAN)
    mask = torch.zeros(hidden.shape[:2])
    for number, row in enumerate(rows):
        hidden[number, : row.shape[1]], mask[number, : row.shape[1]] = row, 1
    torch.testing.assert_close(pool(hidden, mask, pooling), torch.cat([pool(row, None, pooling) for row in rows]))
