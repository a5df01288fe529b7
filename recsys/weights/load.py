"""A model and its tokenizer, from safetensors or GGUF, on one path for all who need them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from recsys.errors import ConfigError
from recsys.weights.converted import folder_of, is_whole, store
from recsys.weights.find import Weights

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_log = logging.getLogger(__name__)


def load_model(weights: Weights, dtype: str, *, head: bool = False) -> tuple[Any, Any]:
    """(model, tokenizer), from local files only. head: with the language-model head (AutoModelForCausalLM), else the bare model (AutoModel).

    Raises:
        ConfigError: the files lack weights of the model, which transformers would fill with random numbers.
    """
    from transformers import AutoTokenizer

    converted = folder_of(weights.revision(), dtype) if weights.gguf is not None else None
    if converted is not None and not is_whole(converted):
        model, tokenizer = _convert(weights, dtype, converted)
        if head:
            return model, tokenizer
        if not is_whole(converted):  # not kept: the body of what was converted
            return model.base_model, tokenizer
    folder = converted or weights.folder
    return _from_folder(folder, dtype, head), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _from_folder(folder: Path, dtype: str, head: bool) -> Any:
    from transformers import AutoModel, AutoModelForCausalLM

    kind: Any = AutoModelForCausalLM if head else AutoModel
    model, info = kind.from_pretrained(folder, local_files_only=True, dtype=DTYPES[dtype], use_safetensors=True, output_loading_info=True)
    # The pooler of BERT-like models stands on top of the states that are read here.
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        raise ConfigError(f"{folder.name}: the files lack {len(missing)} weights of {type(model).__name__}, first {missing[0]!r}; is it another kind of model?")
    return model


def _convert(weights: Weights, dtype: str, folder: Path) -> tuple[Any, Any]:
    """transformers reads a GGUF three times in Python, some 20 s: done once, with the head, then kept."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(weights.folder, local_files_only=True, gguf_file=weights.gguf)
    # Packed GGUF weights are multiplied in float32 by slow kernels: unpack once.
    unpacked = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        weights.folder, gguf_file=weights.gguf, quantization_config=unpacked, local_files_only=True, dtype=DTYPES[dtype]
    )
    if not store(folder, model, tokenizer):
        _log.info("the converted model could not be kept at %s; it is converted again next time", folder)
    return model, tokenizer
