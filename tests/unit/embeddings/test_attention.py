"""The causal mask is there, or gone, in every family: each case is a tiny random model of that family's own code."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recsys.embeddings import transformer
from recsys.embeddings.attention import SWITCHABLE, is_causal, resolve
from recsys.embeddings.text import TextEncoder, TextEncoderConfig
from recsys.embeddings.windows import Batch, Window
from recsys.errors import ConfigError
from recsys.testing.language_models import LAYERS, tiny_model

FAMILIES = [(family, window) for family in SWITCHABLE for window in (0, 4) if not (window and family in ("llama", "gemma"))]
SHORT, LONG = [20, 21, 22, 23, 24], [30, 31, 32, 33, 34, 35, 36, 37, 38]


def load(model: str, attention: str) -> TextEncoder:
    encoder = TextEncoder.load(TextEncoderConfig.parse({"name": "x", "model": model, "attention": attention, "dtype": "float32"}))
    assert isinstance(encoder, TextEncoder) and encoder.space.attention == attention
    return encoder


def states(encoder: TextEncoder, *rows: list[int], pad_to: int = 0) -> Tensor:
    with torch.inference_mode():
        return encoder.states(Batch.of([Window(row, 0, 0) for row in rows], pad_to=pad_to))


@pytest.mark.parametrize(("family", "window"), FAMILIES)
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_the_first_token_sees_the_last_only_without_the_mask(tiny: Callable[..., str], family: str, window: int, attention: str) -> None:
    encoder = load(tiny(family, window=window), attention)
    for pad_to in (0, 2 * len(SHORT)):
        before, after = (states(encoder, [*SHORT[:-1], last], pad_to=pad_to)[0] for last in (50, 51))
        assert not torch.allclose(before[len(SHORT) - 1], after[len(SHORT) - 1])
        assert torch.equal(before[0], after[0]) == (attention == "causal")
        if attention == "bidirectional":
            assert (before[0] - after[0]).abs().max() > 1e-3 * before[0].abs().max()


@pytest.mark.parametrize(("family", "window"), FAMILIES)
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_padding_is_never_seen(tiny: Callable[..., str], family: str, window: int, attention: str) -> None:
    encoder = load(tiny(family, window=window), attention)
    alone = states(encoder, SHORT)[0]
    torch.testing.assert_close(states(encoder, SHORT, LONG)[0, : len(SHORT)], alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(states(encoder, SHORT, pad_to=2 * len(SHORT))[0, : len(SHORT)], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "window"), FAMILIES)
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_equals_the_family_under_a_mask_written_out(tiny: Callable[..., str], family: str, window: int, attention: str) -> None:
    from transformers import AutoModel

    model = tiny(family, window=window)
    distance = torch.arange(len(LONG))[:, None] - torch.arange(len(LONG))
    full = distance >= 0 if attention == "causal" else torch.ones_like(distance, dtype=torch.bool)
    # transformers' windows: `window` tokens with oneself when causal, `window` to either side when not
    near = full & ((distance < window) if attention == "causal" else (distance.abs() <= window)) if window else full
    masks = {
        name: torch.zeros(1, 1, len(LONG), len(LONG)).masked_fill(~seen, torch.finfo(torch.float32).min) for name, seen in {"full": full, "near": near}.items()
    }
    mask = {"full_attention": masks["full"], "sliding_attention": masks["near"]} if family in ("qwen2", "qwen3", "gemma2", "gemma3_text") else masks["near"]
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(model).eval()(input_ids=torch.tensor([LONG]), attention_mask=mask).last_hidden_state
    torch.testing.assert_close(states(load(model, attention), LONG), expected, atol=1e-5, rtol=1e-4)


def test_a_model_that_cannot_be_switched_is_an_error(tiny: Callable[..., str]) -> None:
    for family, attention in (("gpt2", "bidirectional"), ("bert", "causal"), ("modernbert", "causal")):
        with pytest.raises(ConfigError, match=f"cannot be made {attention}"):
            load(tiny(family), attention)
    assert resolve("model", causal=True, model_type="gpt2", model="x") == "causal"


def test_the_attention_is_measured_not_believed(tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As if transformers no longer listened to the switch."""
    monkeypatch.setattr(transformer, "remove_causal_mask", lambda model: None)
    with pytest.raises(ConfigError, match="should be bidirectional, but is measured to be causal"):
        load(tiny("llama"), "bidirectional")


def test_bidirectional_by_its_own_config(tmp_path: Path) -> None:
    """EmbeddingGemma's flag, and `is_causal: false` as LLM2Vec models state it: `attention: model` is then bidirectional."""
    flagged = tiny_model(tmp_path / "gemma", "gemma3_text", window=8, use_bidirectional_attention=True)
    stated = tiny_model(tmp_path / "llama", "llama", is_causal=False)
    for model in (flagged, stated):
        encoder = TextEncoder.load(TextEncoderConfig(name="x", model=model, dtype="float32"))
        assert isinstance(encoder, TextEncoder) and encoder.space.attention == "bidirectional" and not is_causal(encoder.model)
        torch.testing.assert_close(states(encoder, SHORT, LONG)[0, : len(SHORT)], states(encoder, SHORT)[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "bert"])
@pytest.mark.parametrize("layer", [0, 1, LAYERS, -1, -2])
def test_layers_are_those_of_the_whole_model(tiny: Callable[..., str], family: str, layer: int) -> None:
    from transformers import AutoModel

    model = tiny(family)
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(model).eval()(input_ids=torch.tensor([LONG]), output_hidden_states=True).hidden_states[layer]
    encoder = TextEncoder.load(TextEncoderConfig(name="x", model=model, layer=layer, dtype="float32"))
    assert isinstance(encoder, TextEncoder)
    torch.testing.assert_close(states(encoder, LONG), expected, atol=1e-5, rtol=1e-4)


def test_a_layer_beyond_the_model(tiny: Callable[..., str]) -> None:
    for layer in (LAYERS + 1, -LAYERS - 2):
        with pytest.raises(ConfigError, match=f"layer {layer} "):
            TextEncoderConfig(name="x", model=tiny("llama"), layer=layer).space()
