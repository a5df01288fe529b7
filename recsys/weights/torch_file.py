"""A third party's `.pth`, converted once to safetensors: the one place where a pickle is read, and only of a file whose sha256 is known here."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from recsys.artifacts.atomic import sha256_of
from recsys.errors import ArtifactError
from recsys.weights.converted import cache_root, is_whole, store

_FILE = "model.safetensors"
_SECONDS = 120
# In a process of its own: whatever the file does to its reader, it does not do it here. weights_only: tensors, no other objects.
_CONVERT = """
import sys, torch
from safetensors.torch import save_file
state = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
save_file({name: tensor.contiguous() for name, tensor in state.items() if tensor.is_floating_point()}, sys.argv[2])
"""


class _Kept:
    """What `store` asks for its parts."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def save_pretrained(self, folder: Path) -> None:
        (folder / _FILE).write_bytes(self._data)


def load_torch_file(file: Path, sha256: str) -> dict[str, Tensor]:
    """The file's floating-point tensors by name, from the kept conversion where there is one.

    Raises:
        ArtifactError: the file is missing or is not the one of `sha256` (it is not opened then), or cannot be converted.
    """
    kept = cache_root() / f"{sha256}-torch-file-1"
    if not is_whole(kept):
        return _converted(file, sha256, kept)
    return load_file(kept / _FILE)


def _converted(file: Path, sha256: str, kept: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise ArtifactError(f"{file}: no such file")
    if (found := sha256_of(file)) != sha256:
        raise ArtifactError(f"{file}: sha256 is {found}, expected {sha256}; another version or a damaged file is not opened, install the package again")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / _FILE
        try:
            done = subprocess.run([sys.executable, "-c", _CONVERT, str(file), str(target)], capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise ArtifactError(f"{file}: the conversion did not end within {_SECONDS} s") from None
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise ArtifactError(f"{file}: not readable as tensors alone (torch {torch.__version__}, weights_only): {said[0]}")
        store(kept, _Kept(target.read_bytes()))  # not kept: it is converted again next time
        return load_file(target)
