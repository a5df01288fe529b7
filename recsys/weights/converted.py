"""A model converted once to safetensors, kept in a cache folder. Never required, only faster."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from recsys.artifacts.atomic import fsync_folder, sha256_of, write_json

MANIFEST = "manifest.json"


def cache_root() -> Path:
    """$RECSYS_CACHE, else $XDG_CACHE_HOME/recsys, else ~/.cache/recsys."""
    if given := os.environ.get("RECSYS_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "recsys"


def folder_of(revision: str, dtype: str) -> Path:
    """Decided by all that can change the conversion: the weights' sha256, the dtype, the versions that convert."""
    import gguf
    import transformers

    return cache_root() / f"{revision}-{dtype}-lm-transformers{transformers.__version__}-gguf{getattr(gguf, '__version__', '')}"


def is_whole(folder: Path) -> bool:
    """Whether the folder holds every file of its manifest, each with its sha256."""
    try:
        stated: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(stated) and all(sha256_of(folder / name) == digest for name, digest in stated.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def store(folder: Path, *parts: Any) -> bool:
    """Each part's `save_pretrained` writes under a temporary name, which is then renamed: another process sees all or nothing.

    False where the disk refuses; the caller goes on without.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        for part in parts:
            part.save_pretrained(temporary)
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        write_json(temporary / MANIFEST, {file.name: sha256_of(file) for file in sorted(temporary.iterdir())})
        if folder.exists() and not is_whole(folder):  # damaged: make place
            folder.rename(temporary.with_suffix(".damaged"))
            shutil.rmtree(temporary.with_suffix(".damaged"), ignore_errors=True)
        temporary.rename(folder)  # fails where another process was first: its folder is as good
        fsync_folder(folder.parent)
        return True
    except OSError:
        return False
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
