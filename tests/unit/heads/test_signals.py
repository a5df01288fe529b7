"""Transforms: what they promise of the training items, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.errors import DataError
from recsys.heads.config import SignalOptions
from recsys.heads.signals import fit_transform


@pytest.fixture
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + 3).astype(np.float32)


def transformed(vectors: np.ndarray, **options: object) -> np.ndarray:
    chosen = SignalOptions.model_validate(options)
    transform = fit_transform(vectors, chosen)
    result = transform(vectors).numpy()
    assert (transform.in_width, transform.out_width) == (vectors.shape[1], result.shape[1])
    return result


def test_unit_and_none(vectors: np.ndarray) -> None:
    np.testing.assert_array_equal(transformed(vectors, transform="none"), vectors)
    unit = transformed(np.concatenate([vectors, np.zeros((1, 6), dtype=np.float32)]), transform="unit")
    np.testing.assert_allclose(np.linalg.norm(unit[:-1], axis=1), 1, rtol=1e-6)
    assert (unit[-1] == 0).all()
    np.testing.assert_allclose(unit[0], vectors[0] / np.linalg.norm(vectors[0]), rtol=1e-6)
    np.testing.assert_allclose(transformed(vectors, transform="unit", scale=2.5), 2.5 * unit[:-1], rtol=1e-6)


@pytest.mark.parametrize("transform", ["standardise", "whiten", "zca"])
def test_a_norm_of_about_one_and_no_mean(vectors: np.ndarray, transform: str) -> None:
    result = transformed(vectors, transform=transform)
    np.testing.assert_allclose(result.mean(axis=0), 0, atol=1e-4)
    assert (result**2).sum(axis=1).mean() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("transform", ["whiten", "zca"])
def test_whitened_dimensions_are_uncorrelated(vectors: np.ndarray, transform: str) -> None:
    result = transformed(vectors, transform=transform)
    np.testing.assert_allclose(result.T @ result / len(result), np.eye(6) / 6, atol=1e-3)


def test_zca_stays_nearest_to_what_it_was(vectors: np.ndarray) -> None:
    matrix = fit_transform(vectors, SignalOptions(transform="zca")).matrix
    assert matrix is not None
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5)
    assert np.linalg.eigvalsh(matrix.numpy()).min() > 0
    # Of fewer components: the same width, and no variance on the axes that are left out.
    some = transformed(vectors, transform="zca", components=2)
    assert some.shape == vectors.shape and np.linalg.matrix_rank(some, tol=1e-3) == 2
    np.testing.assert_allclose(np.linalg.svd(transformed(vectors, transform="whiten", components=2))[1], np.linalg.svd(some)[1][:2], rtol=1e-3)


def test_a_constant_dimension_is_no_division_by_zero(vectors: np.ndarray) -> None:
    constant = vectors.copy()
    constant[:, 2] = 7
    for transform in ("standardise", "whiten", "zca"):
        assert np.isfinite(transformed(constant, transform=transform)).all()
    with pytest.raises(DataError, match="at least 2"):
        fit_transform(vectors[:1], SignalOptions())
