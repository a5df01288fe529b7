"""`Quarantine`: contents that an encoder refused, with the reason, beside the cache: no run tries them again unless it is asked to."""

from __future__ import annotations

import fcntl
import json
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recsys.artifacts.atomic import read_json, write_json
from recsys.embeddings.content import KEY_BYTES, KeyArray
from recsys.errors import ArtifactError
from recsys.types import BoolArray

MANY = 64
"""Files that are merged into one."""
MAX_REASON = 500
"""Characters; a reason may quote the content, which is untrusted."""


class Quarantine:
    """Reasons by key of 32 bytes, in memory and in small JSON files of `folder`, each written whole or not at all; several processes may add.

    Raises:
        ArtifactError: a file that is not readable.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reasons: dict[bytes, str] = {}
        for path in sorted(folder.glob("*.json")):
            try:
                self._reasons |= {bytes.fromhex(key): str(reason) for key, reason in read_json(path).items()}
            except FileNotFoundError:  # merged by another process: its content is in a later file or was read already
                continue
            except (ValueError, AttributeError) as error:
                raise ArtifactError(f"{path}: not readable: {error}; delete this file, its items are then tried again") from None

    def __len__(self) -> int:
        return len(self._reasons)

    def reason(self, key: bytes) -> str | None:
        return self._reasons.get(key)

    def has(self, keys: KeyArray) -> BoolArray:
        """bool (m,) of keys uint8 (m, 32)."""
        if not self._reasons:
            return np.zeros(len(keys), dtype=np.bool_)
        raw = np.ascontiguousarray(keys).tobytes()
        return np.array([raw[i : i + KEY_BYTES] in self._reasons for i in range(0, len(raw), KEY_BYTES)], dtype=np.bool_)

    def add(self, reasons: Mapping[bytes, str]) -> None:
        """On return they are on the disk."""
        fresh = {key: printable(reason) for key, reason in reasons.items() if self._reasons.get(key) != printable(reason)}
        if not fresh:
            return
        self._reasons |= fresh
        self._write(fresh)
        if len(files := list(self.folder.glob("*.json"))) >= MANY:
            self._merge(files)

    def forget(self, keys: KeyArray | None = None) -> None:
        """Try them again; None: all that were ever refused."""
        raw = b"" if keys is None else np.ascontiguousarray(keys).tobytes()
        gone = set(self._reasons) if keys is None else {raw[i : i + KEY_BYTES] for i in range(0, len(raw), KEY_BYTES)}
        kept = {key: reason for key, reason in self._reasons.items() if key not in gone}
        if len(kept) == len(self._reasons):
            return
        self._reasons = kept
        files = list(self.folder.glob("*.json"))
        if kept:
            self._write(kept)
        for file in files:
            file.unlink(missing_ok=True)

    def _write(self, reasons: Mapping[bytes, str]) -> Path:
        path = self.folder / f"{uuid.uuid4().hex}.json"
        write_json(path, {key.hex(): reason for key, reason in reasons.items()})
        return path

    def _merge(self, files: list[Path]) -> None:
        with (self.folder / ".lock").open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                merged: dict[str, str] = {}
                for file in files:
                    merged |= json.loads(file.read_text(encoding="utf-8"))
            except OSError:  # another process is at it
                return
            self._write({bytes.fromhex(key): reason for key, reason in merged.items()})
            for file in files:
                file.unlink(missing_ok=True)


def printable(reason: str) -> str:
    """One line without control characters, at most `MAX_REASON` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 3] + "..."
