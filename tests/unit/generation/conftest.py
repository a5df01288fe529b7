"""Two tiny models with a byte tokenizer, built here: one that writes the alphabet, and random ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedTokenizerFast

from recsys.generation.local import LocalGenerator, LocalGeneratorConfig

START, END = "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES: dict[str, Any] = {
    "vocab_size": 258, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 512, "tie_word_embeddings": False, "eos_token_id": 257,
}  # fmt: skip


def byte_tokenizer(template: str | None = CHATML) -> Any:
    """One token a byte; 256 and 257 are the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([START, END])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    wrapped.chat_template = template
    return wrapped


def ids_of(text: str, tokenizer: Any) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def alphabet_model(tokenizer: Any, strength: float = 30.0) -> Any:
    """After a line break comes a, after a letter the next one, after z the end; all else ends at once. `strength`: the logit of what comes."""
    torch.manual_seed(0)
    # As wide as the vocabulary: each token is a direction of its own.
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES | {"hidden_size": 512}), dtype=torch.float32)
    following = torch.full((258,), 257)
    for before, after in zip("\nabcdefghijklmnopqrstuvwxy", "abcdefghijklmnopqrstuvwxyz", strict=True):
        following[ids_of(before, tokenizer)[0]] = ids_of(after, tokenizer)[0]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(258, 512))
        head = torch.zeros(258, 512)
        head[following, torch.arange(258)] = strength / 512**0.5  # the final norm gives the one entry the size of sqrt(512)
        model.lm_head.weight.copy_(head)
    return model


def random_model(*, window: int | None = None) -> Any:
    torch.manual_seed(1)
    config = LlamaConfig(**SIZES) if window is None else MistralConfig(**SIZES, sliding_window=window)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)  # decided, so that rounding does not choose
    return model


def generator_of(model: Any, tokenizer: Any, **options: Any) -> LocalGenerator:
    return LocalGenerator(LocalGeneratorConfig(model="tiny", dtype="float32", **options), "tiny", model, tokenizer)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def alphabet_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """The alphabet model as a user would have it: a folder."""
    folder = tmp_path_factory.mktemp("models") / "alphabet"
    alphabet_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
