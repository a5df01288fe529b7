"""A transformer cut in two computes what the whole computes."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from recsys.embeddings.layers import LowerHalf, UpperHalf, first_of_last, layers_of
from recsys.errors import ConfigError

SIZES = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
DECODERS = {"num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def tiny(kind: str, **others: object) -> PreTrainedModel:
    torch.manual_seed(0)
    extra = {} if "bert" in kind else {**DECODERS, **({"head_dim": 8} if kind == "qwen3" else {})}
    return AutoModel.from_config(AutoConfig.for_model(kind, **{**SIZES, **extra, **others})).eval()


IDS = torch.tensor([[5, 9, 11, 40, 2], [7, 8, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "bert", "roberta"])
@pytest.mark.parametrize("first", [0, 1, 3])
@torch.inference_mode()
def test_halves_equal_the_whole(kind: str, first: int) -> None:
    model = tiny(kind)
    options = {"attention_mask": MASK} if "bert" in kind else {"use_cache": False}
    whole = model(input_ids=IDS, output_hidden_states=True, **options)
    states = LowerHalf(model, first)(input_ids=IDS, **options)
    hidden = UpperHalf(model, first)(states, **options)
    seen = MASK.bool()
    torch.testing.assert_close(states[seen], whole.hidden_states[first][seen], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(hidden[seen], whole.last_hidden_state[seen], rtol=1e-5, atol=1e-6)
    again = model(input_ids=IDS, **options).last_hidden_state
    assert len(layers_of(model)[1]) == model.config.num_hidden_layers == 4
    torch.testing.assert_close(again, whole.last_hidden_state, msg="the model itself stays whole")


@pytest.mark.parametrize("first", [1, 2, 3])
@torch.inference_mode()
def test_a_layer_keeps_the_mask_of_its_place(first: int) -> None:
    """Every other layer sees two tokens back only."""
    kinds = ["sliding_attention", "full_attention"] * 2
    model = tiny("qwen2", layer_types=kinds, sliding_window=2, use_sliding_window=True)
    whole = model(input_ids=IDS, use_cache=False).last_hidden_state
    hidden = UpperHalf(model, first)(LowerHalf(model, first)(input_ids=IDS, use_cache=False), use_cache=False)
    torch.testing.assert_close(hidden, whole, rtol=1e-5, atol=1e-6)
    other = tiny("qwen2", layer_types=["full_attention"] * 4)(input_ids=IDS, use_cache=False).last_hidden_state
    assert not torch.allclose(whole, other, atol=1e-3)
    assert model.config.layer_types == kinds


@torch.inference_mode()
def test_a_removed_causal_mask_stays_removed_in_both_halves() -> None:
    from recsys.embeddings.attention import remove_causal_mask

    model = tiny("llama")
    causal = model(input_ids=IDS, use_cache=False).last_hidden_state
    remove_causal_mask(model)
    whole = model(input_ids=IDS, attention_mask=MASK, use_cache=False).last_hidden_state
    states = LowerHalf(model, 2)(input_ids=IDS, attention_mask=MASK, use_cache=False)
    hidden = UpperHalf(model, 2)(states, attention_mask=MASK, use_cache=False)
    seen = MASK.bool()
    torch.testing.assert_close(hidden[seen], whole[seen], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(hidden[seen], causal[seen], atol=1e-3)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "bert"])
@pytest.mark.parametrize("first", [0, 3])
def test_read_at_some_positions_it_is_the_whole(kind: str, first: int) -> None:
    """Values, and gradients of the states and of all parameters, those of LoRA too, which is put in after the cut."""
    from recsys.embeddings.adapter import LoraTuning, make_trainable

    model = tiny(kind)
    upper = UpperHalf(model, first)
    torch.manual_seed(2)
    for parameter in make_trainable(model, LoraTuning(rank=2), 4 - first).values():
        torch.nn.init.normal_(parameter, std=0.3)
    options = {} if "bert" in kind else {"use_cache": False}
    states = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    positions = torch.tensor([[4, 1], [2, 3]])
    found = {}
    for way, hidden in (("at", upper.at(positions, states, **options)), ("whole", upper(states, **options)[torch.arange(2)[:, None], positions])):
        (hidden * torch.arange(1.0, 17.0)).square().sum().backward()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        found[way] = [hidden.detach(), states.grad, *(p.grad for p in trained.values())]
        assert all(gradient is not None for gradient in found[way])
        states.grad = None
        model.zero_grad()
    for ours, reference in zip(found["at"], found["whole"], strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
    assert len(found["at"]) > 4


def test_the_halves_share_the_models_parameters() -> None:
    model = tiny("bert")
    own = {id(parameter) for parameter in model.parameters()}
    upper = UpperHalf(model, 3)
    assert {id(p) for p in upper.parameters()} <= own
    assert {id(p) for p in model.encoder.layer[3].parameters()} <= {id(p) for p in upper.parameters()}


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="last 5 layers are asked for; BertModel has 4"):
        first_of_last(tiny("bert"), 5)
    assert first_of_last(tiny("llama"), 3) == 1
    odd = tiny("gpt2", n_embd=16, n_layer=4, n_head=2)
    with pytest.raises(ConfigError, match="'gpt2' cannot be cut.*llama"):
        UpperHalf(odd, 2)
