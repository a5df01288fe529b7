"""The next token, against probabilities worked out by hand."""

import numpy as np
import pytest
import torch

from recsys.errors import NonFiniteError
from recsys.generation.choosing import choose, log_probabilities
from recsys.generation.sampling import Sampling

LOGITS = torch.tensor([[0.1, 0.5, 0.3, 0.1]]).log()


def chosen(sampling: Sampling, *uniforms: float, logits: torch.Tensor = LOGITS) -> list[int]:
    return choose(logits.expand(len(uniforms), -1), sampling, torch.tensor(uniforms)).tolist()


def test_greedy_takes_the_first_of_the_highest() -> None:
    assert chosen(Sampling(), 0.9) == [1]
    assert chosen(Sampling(), 0.9, logits=torch.tensor([[1.0, 2.0, 2.0]])) == [1]


def test_a_number_inverts_the_cumulative_distribution() -> None:
    # Cumulative in the order of the vocabulary: 0.1, 0.6, 0.9, 1.0.
    assert chosen(Sampling(temperature=1), 0.0, 0.09, 0.11, 0.59, 0.61, 0.89, 0.91, 0.999) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_top_p_keeps_the_smallest_set() -> None:
    # 0.5 alone is less than 0.7; with 0.3 it is 0.8: tokens 1 and 2, as 5/8 and 3/8.
    assert chosen(Sampling(temperature=1, top_p=0.7), 0.0, 0.62, 0.63, 0.999) == [1, 1, 2, 2]
    assert chosen(Sampling(temperature=1, top_p=0.01), 0.0, 0.999) == [1, 1]


def test_temperature_sharpens() -> None:
    # Squares of 0.1, 0.5, 0.3, 0.1 by their sum 0.36: 0.028, 0.694, 0.25, 0.028.
    assert chosen(Sampling(temperature=0.5), 0.02, 0.03, 0.72, 0.73, 0.97, 0.98) == [0, 1, 1, 2, 2, 3]
    assert chosen(Sampling(temperature=1e-6), 0.0, 0.999) == [1, 1]


def test_rows_flatter_than_the_sorted_head_are_sorted_whole() -> None:
    rng = np.random.default_rng(0)
    logits = torch.tensor(np.stack([rng.normal(size=2000) * 0.1, rng.normal(size=2000) * 5]), dtype=torch.float32)
    uniforms = torch.tensor([0.7, 0.7])
    expected = []
    for row, number in zip(logits.double().softmax(1), uniforms.tolist(), strict=True):
        order = sorted(range(2000), key=lambda token: (-float(row[token]), token))
        kept, total = [], 0.0
        for token in order:
            if total >= 0.9:
                break
            kept.append(token)
            total += float(row[token])
        cumulative = np.cumsum([float(row[token]) for token in kept])
        expected.append(kept[int(np.searchsorted(cumulative, number * cumulative[-1], side="right"))])
    assert choose(logits, Sampling(temperature=1, top_p=0.9), uniforms).tolist() == expected


def test_log_probability_is_of_the_model() -> None:
    assert log_probabilities(LOGITS + 3, torch.tensor([2])).item() == pytest.approx(np.log(0.3), abs=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_no_number_is_an_error(bad: float) -> None:
    with pytest.raises(NonFiniteError, match="1 of 2 rows"):
        choose(torch.tensor([[1.0, bad], [1.0, 2.0]]), Sampling(), torch.zeros(2))
