"""A decoder cut after its first layers, reading vectors: equal to the whole one's inner states, and blind to padding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from recsys.embeddings.first_layers import cut_after, final_norm_of, load_decoder, read_vectors, token_scale, without_tokens
from recsys.errors import ConfigError
from recsys.testing.language_models import CAUSAL, DIM, tiny_model


@pytest.mark.parametrize("family", CAUSAL)
def test_the_first_layers_give_the_inner_states_of_the_whole_model(tmp_path: Path, family: str) -> None:
    name = tiny_model(tmp_path, family)
    whole, cut = load_decoder(name, None)[0].base_model, load_decoder(name, 2)[0].base_model
    ids = torch.arange(5, 12)[None]
    expected = whole(input_ids=ids, output_hidden_states=True).hidden_states[2]
    setattr(cut, final_norm_of(cut), nn.Identity())
    torch.testing.assert_close(cut(input_ids=ids).last_hidden_state, expected, atol=1e-5, rtol=1e-4)
    assert not cut.training and not any(parameter.requires_grad for parameter in cut.parameters())


@pytest.mark.parametrize("family", CAUSAL)
def test_padding_changes_no_vector_and_no_gradient(tmp_path: Path, family: str) -> None:
    body = load_decoder(tiny_model(tmp_path, family), 2)[0].base_model
    without_tokens(body)
    torch.manual_seed(0)
    alone = torch.randn(1, 3, DIM, requires_grad=True)
    padded = torch.cat([torch.randn(1, 4, DIM), alone.detach()], dim=1).requires_grad_()
    beside = torch.cat([padded, torch.randn(1, 7, DIM)])
    valid = torch.tensor([[False] * 4 + [True] * 3, [True] * 7])
    states = read_vectors(body, beside, valid)
    expected = read_vectors(body, alone, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(states[0, 4:], expected[0], atol=1e-5, rtol=1e-4)
    weights = torch.randn(3, DIM)
    (given,) = torch.autograd.grad((states[0, 4:] * weights).sum(), padded)
    (wanted,) = torch.autograd.grad((expected[0] * weights).sum(), alone)
    torch.testing.assert_close(given[0, 4:], wanted[0], atol=1e-5, rtol=1e-4)
    assert torch.equal(given[0, :4], torch.zeros(4, DIM)), "nothing flows into padding"
    # A position sees only those before it.
    longer = read_vectors(body, torch.cat([alone, torch.randn(1, 2, DIM)], dim=1), torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(longer[:, :3], expected, atol=1e-5, rtol=1e-4)


def test_random_weights_follow_from_the_seed(tmp_path: Path) -> None:
    name = tiny_model(tmp_path, "llama")
    one, again, other, trained = (
        load_decoder(name, 1, start=start, seed=seed)[0].base_model.layers[0].mlp.up_proj.weight
        for start, seed in (("random", 0), ("random", 0), ("random", 1), ("pretrained", 0))
    )
    assert torch.equal(one, again) and not torch.equal(one, other) and not torch.equal(one, trained)


def test_what_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    name = tiny_model(tmp_path / "llama", "llama")
    with pytest.raises(ConfigError, match="first 9 layers"):
        load_decoder(name, 9)
    with pytest.raises(ConfigError, match="no causal"):
        load_decoder(tiny_model(tmp_path / "bert", "bert"), 2)
    body = load_decoder(name, 2)[0].base_model
    assert token_scale(body) == pytest.approx(0.2, rel=0.05)
    with pytest.raises(ConfigError, match="first 0"):
        cut_after(body, 0)
