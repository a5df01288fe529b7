"""The lens of a cut language model: a planted map is found, and it reads the states of the cut model nearer to the whole one's than the identity does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from recsys.alignment.config import ProjectionConfig, PromptConfig
from recsys.alignment.frozen_llm import FrozenLLM
from recsys.alignment.lens import _least_squares, fitted_lens
from recsys.alignment.prompts import Prompts
from recsys.errors import DataError
from recsys.testing.language_models import tiny_model

TITLES = [f"title number {item} of {item % 7}" for item in range(60)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ProjectionConfig:
    """Of a model whose layers after the first do a lot."""
    folder = tiny_model(tmp_path_factory.mktemp("llama"), "llama", chat=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for layer in model.base_model.layers[1:]:
            layer.mlp.down_proj.weight.mul_(3)
            layer.self_attn.o_proj.weight.mul_(3)
    model.save_pretrained(folder)
    return ProjectionConfig(model=folder, layers=1, prompt=PromptConfig(history_items=3), lens_prompts=100)


def test_a_planted_map_is_found() -> None:
    torch.manual_seed(0)
    states, matrix, bias = torch.randn(400, 6).double() + 2, torch.randn(6, 6).double(), torch.randn(6).double()
    weight, shift = _least_squares(states, states @ matrix + bias)
    found = states.float() + states.float() @ weight.T + shift
    assert (found - (states @ matrix + bias).float()).square().mean().sqrt() < 0.02


def test_it_reads_nearer_to_the_whole_model_than_the_identity_does_on_prompts_that_it_did_not_see(config: ProjectionConfig) -> None:
    cut, whole = FrozenLLM.load(config), FrozenLLM.load(config.model_copy(update={"layers": None}))
    random = np.random.default_rng(0)
    histories = [random.integers(0, 40, 3) for _ in range(120)]
    weight, bias = fitted_lens(config, cut, TITLES, histories, random.integers(0, 40, 120), seed=0)
    words = Prompts(config.prompt, cut.tokenizer, TITLES, user_vector=False, item_vectors=False)
    rows = torch.tensor([words.recommend(random.integers(40, 60, 3))[:60] for _ in range(20)])
    valid = torch.ones_like(rows, dtype=torch.bool)
    with torch.no_grad():
        states, wanted = cut.states(cut.embedded(rows), valid)[:, 1:], whole.states(whole.embedded(rows), valid)[:, 1:]
    before = torch.cosine_similarity(states, wanted, dim=-1).mean()
    after = torch.cosine_similarity(states + states @ weight.T + bias, wanted, dim=-1).mean()
    assert before < 0.9
    assert 1 - after < 0.7 * (1 - before)


def test_without_examples_it_says_so(config: ProjectionConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training examples"):
        fitted_lens(config, FrozenLLM.load(config), TITLES, [], np.zeros(0, dtype=np.int64), seed=0)
