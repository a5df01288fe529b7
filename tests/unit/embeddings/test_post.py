from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.content import of_texts
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.post import FittedPost, PostConfig, fit_post
from recsys.embeddings.post_encoder import PostEncoder
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import ArtifactError, ConfigError, DataError, SpaceMismatchError
from recsys.types import FloatArray

DIM, ITEMS, TRAINED = 6, 60, 40
TRAINING = np.arange(ITEMS) < TRAINED
KINDS = ["centre", "zca", "pca_whiten", "pca", "all_but_the_top"]


def table(values: FloatArray) -> EmbeddingTable:
    return EmbeddingTable(values.astype(np.float32), Vocabulary([f"i{number}" for number in range(len(values))]), HashedEncoder(values.shape[1]).space)


def made(seed: int = 0, dim: int = DIM) -> EmbeddingTable:
    """Correlated, off the origin, on axes of very different width."""
    generator = np.random.default_rng(seed)
    return table(generator.standard_normal((ITEMS, dim)) * 2.0 ** -np.arange(dim) @ generator.standard_normal((dim, dim)) + 3)


def fit(of: EmbeddingTable, split_hash: str = "split", **options: object) -> FittedPost:
    return fit_post(PostConfig.parse({"normalise": False, **options}), of, TRAINING[: len(of)], split_hash)


def test_whitening_known_answer() -> None:
    """Two axes with variances 4 (sample variance of -2, 0, 2 is 4) and 1: ZCA halves the first; PCA whitening too, largest axis first."""
    four = table(np.array([[1, -2 + 5], [1, 0 + 5], [1, 2 + 5], [0, 5], [2, 5]], dtype=np.float32))
    both = np.array([[0, -2], [0, 0], [0, 2], [-1, 0], [1, 0]]) @ np.diag([2**0.5, 2**-0.5])  # variances: 2/4 and 8/4
    np.testing.assert_allclose(fit(four, kind="zca").apply_to(four).values, both, atol=1e-5)
    np.testing.assert_allclose(fit(four, kind="pca_whiten").apply_to(four).values, both[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(fit(four, kind="pca", dim=1).apply_to(four).values, [[-2], [0], [2], [0], [0]], atol=1e-5)
    np.testing.assert_allclose(fit(four, kind="centre").apply_to(four).values, four.values - [1, 5], atol=1e-5)
    np.testing.assert_allclose(fit(four, kind="all_but_the_top").apply_to(four).values, [[0, 0], [0, 0], [0, 0], [-1, 0], [1, 0]], atol=1e-5)


@pytest.mark.parametrize(("kind", "dim"), [("zca", None), ("pca_whiten", None), ("pca_whiten", 3)])
def test_whitened_training_vectors_have_identity_covariance(kind: str, dim: int | None) -> None:
    whitened = fit(made(), kind=kind, dim=dim).apply_to(made()).values[:TRAINED]
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(dim or DIM), atol=1e-3)
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-4)


def test_zca_is_the_whitening_nearest_to_the_vectors() -> None:
    """matrix = cov^-1/2, symmetric: against scipy's matrix power."""
    from scipy.linalg import fractional_matrix_power

    fitted = fit(made(), kind="zca")
    expected = fractional_matrix_power(np.cov(made().values[:TRAINED].T.astype(np.float64)), -0.5)
    np.testing.assert_allclose(fitted.matrix, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_items_do_not_move_the_fit(kind: str) -> None:
    other = made().values.copy()
    other[TRAINED:] = 1e6
    one, two = fit(made(), kind=kind), fit(table(other), kind=kind)
    np.testing.assert_array_equal(one.matrix, two.matrix)
    np.testing.assert_array_equal(one.mean, two.mean)
    assert one.space == two.space


@pytest.mark.parametrize("kind", KINDS)
def test_the_space_names_what_was_fitted(kind: str) -> None:
    base, space = made().space, fit(made(), kind=kind).space
    assert space.split_hash == "split" and space.post.startswith(f"{kind}:") and not space.normalise
    others = [fit(made(), "other", kind=kind), fit(made(1), kind=kind), fit(made(), kind=kind, normalise=True)]
    assert len({base.space_id, space.space_id, *(other.space.space_id for other in others)}) == 5


def test_saved_and_loaded(tmp_path: Path) -> None:
    fitted = fit(made(), kind="pca_whiten", dim=4, normalise=True)
    fitted.save(tmp_path)
    loaded = FittedPost.load(tmp_path)
    assert loaded.space == fitted.space and loaded.config == fitted.config
    np.testing.assert_array_equal(loaded.apply(made().values), fitted.apply(made().values))


def test_changed_numbers_or_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not readable"):
        FittedPost.load(tmp_path)
    fit(made()).save(tmp_path)
    from safetensors import safe_open

    with safe_open(tmp_path / "post.safetensors", framework="numpy") as file:
        facts = file.metadata()
    save_file(load_file(tmp_path / "post.safetensors") | {"mean": np.ones(DIM, dtype=np.float32)}, tmp_path / "post.safetensors", metadata=facts)
    with pytest.raises(ArtifactError, match="digest"):
        FittedPost.load(tmp_path)


def test_as_an_encoder() -> None:
    base = HashedEncoder(8)
    texts = of_texts(["a b", "b c", "c d", "a d e", "f"])
    values = EmbeddingTable(base.encode(texts), Vocabulary("abcde"), base.space)
    fitted = fit_post(PostConfig(kind="pca", dim=3), values, np.ones(5, dtype=np.bool_), "split")
    encoder = PostEncoder(base, fitted)
    np.testing.assert_array_equal(encoder.encode(texts), fitted.apply_to(values).values)
    assert encoder.dim == 3 and encoder.space == fitted.space
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(texts), axis=1), 1, atol=1e-6)
    with pytest.raises(SpaceMismatchError, match="fitted in space"):
        PostEncoder(HashedEncoder(8, template="other"), fitted)


@given(st.sampled_from(KINDS), st.integers(0, 5), st.booleans())
def test_a_row_does_not_depend_on_the_others(kind: str, row: int, normalise: bool) -> None:
    fitted = fit(made(), kind=kind, normalise=normalise)
    values = made().values
    np.testing.assert_allclose(fitted.apply(values[row : row + 1])[0], fitted.apply(values)[row], rtol=1e-6, atol=1e-7)


def test_axes_without_variance_are_left_out_not_blown_up() -> None:
    flat = made(dim=4).values
    flat = table(np.concatenate([flat, flat[:, :1] + flat[:, 1:2], np.ones((ITEMS, 1))], axis=1))  # rank 4 in 6 dimensions
    assert fit(flat, kind="pca_whiten").space.dim == 4
    whitened = fit(flat, kind="zca").apply_to(flat).values[:TRAINED]
    values = np.linalg.eigvalsh(np.cov(whitened.T))
    np.testing.assert_allclose(values, [0, 0, 1, 1, 1, 1], atol=1e-2)
    with pytest.raises(ConfigError, match="variance on 4 axes"):
        fit(flat, kind="pca", dim=5)


def test_shrinkage_goes_from_whitening_to_scaling() -> None:
    full = fit(made(), kind="zca", shrinkage=1.0).matrix
    np.testing.assert_allclose(full, np.eye(DIM) * full[0, 0], atol=1e-4)


def test_bad_input() -> None:
    with pytest.raises(DataError, match="1 training items"):
        fit_post(PostConfig(), made(), np.arange(ITEMS) < 1, "split")
    with pytest.raises(DataError, match="all equal"):
        fit(table(np.ones((5, 3), dtype=np.float32)))
    with pytest.raises(ValueError, match="mask"):
        fit_post(PostConfig(), made(), np.arange(ITEMS), "split")
    fitted = fit(made())
    with pytest.raises(SpaceMismatchError, match="post-processing"):
        fit(fitted.apply_to(made()))
    with pytest.raises(SpaceMismatchError, match="fitted on split 'other'"):
        fit(EmbeddingTable(made().values, made().vocabulary, made().space.model_copy(update={"split_hash": "other"})))
    with pytest.raises(SpaceMismatchError):
        fitted.apply_to(EmbeddingTable(made().values, made().vocabulary, made().space.model_copy(update={"template": "other"})))
    with pytest.raises(SpaceMismatchError):
        fitted.apply(np.ones((2, DIM + 1), dtype=np.float32))
