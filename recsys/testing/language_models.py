"""Tiny language models with random weights, saved like real ones: every family's own code on a few thousand numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from recsys.artifacts.artifact import Manifest, write_artifact
from recsys.embeddings.adapter import KIND, LoraTuning, make_trainable, save_adapter
from recsys.weights.find import find_weights

CAUSAL = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2")
BIDIRECTIONAL = ("bert", "roberta", "modernbert")
SPECIAL = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
DIM, LAYERS = 32, 3
CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_model(folder: Path, family: str, *, seed: int = 0, wrap: bool = False, chat: bool = False, window: int = 0, **options: Any) -> str:
    """Write model and tokenizer into `folder` and return it as a model name.

    family: of `CAUSAL` (saved with the language-model head) or `BIDIRECTIONAL`. wrap: the tokenizer puts <s> and </s> around a text.
    chat: it has a chat template. window: width of the sliding window of those layers that have one; 0: no such layers.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": 256 + len(SPECIAL), "hidden_size": DIM, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2,
    }  # fmt: skip
    if family in CAUSAL and family != "gpt2":
        sizes |= {"num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True}
    if family == "roberta":
        sizes |= {"max_position_embeddings": 513}
    if family == "mistral":
        sizes |= {"sliding_window": window or None}
    if family in ("qwen2", "qwen3", "gemma2", "gemma3_text"):
        kinds = ["sliding_attention" if window and layer % 2 == 0 else "full_attention" for layer in range(LAYERS)]
        sizes |= {"layer_types": kinds, "sliding_window": window or None, "use_sliding_window": bool(window)}
    if family in ("gemma2", "gemma3_text"):
        sizes |= {"sliding_window": window or 4096, "query_pre_attn_scalar": 8}
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **sizes | options)
    kind: Any = AutoModelForCausalLM if family in CAUSAL else AutoModel
    kind.from_config(config).eval().save_pretrained(folder)
    byte_tokenizer(wrap=wrap, chat=chat).save_pretrained(folder)
    return str(folder)


def tiny_adapter(folder: Path, model: str, *, split_hash: str = "split", seed: int = 0, alpha: float = 8.0) -> Path:
    """A LoRA adapter of random weights for all layers of a tiny model, written as an artifact."""
    from transformers import AutoModel

    tuning = LoraTuning(rank=2, alpha=alpha, targets=("q_proj", "v_proj"))
    body = AutoModel.from_pretrained(model)
    torch.manual_seed(seed)
    trained = {name: torch.randn_like(parameter) / 5 for name, parameter in make_trainable(body, tuning, LAYERS).items()}

    def write(temporary: Path) -> dict[str, Any]:
        return save_adapter(temporary, trained, tuning, LAYERS, base=find_weights(model).revision(), split=split_hash)

    return write_artifact(folder, Manifest(kind=KIND, key=folder.name, config_hash=""), write).path


def byte_tokenizer(*, wrap: bool = False, chat: bool = False) -> Any:
    """One token a byte, after the special tokens; nothing is unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if wrap:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    fast: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", additional_special_tokens=["<|im_start|>", "<|im_end|>"]
    )
    if chat:
        fast.chat_template = CHAT
    return fast
