"""`ItemJournal`: new items on disk, in files that are written once: whole or not at all.

`<number>-<sha256 of the bytes>.json` holds items (their fields as they were sent) and their vectors by space_id (float32, base64). Another
model may need vectors of another space: those come as further files of the same items. What does not have the bytes that its name says is
moved to `damaged/`, and its items are gone until they are sent again; everything else is served.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys.artifacts.atomic import write_bytes
from recsys.errors import DataError, RetryableError
from recsys.types import FloatArray

FORMAT = 1
DAMAGED = "damaged"
_NAME = re.compile(r"(?P<number>\d{8})-(?P<sha256>[0-9a-f]{64})\.json")
_log = logging.getLogger(__name__)

Item = Mapping[str, Any]


class ItemJournal:
    """folder: None keeps everything in memory alone, for tests and notebooks. Several services may share a folder. Thread-safe."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._items: dict[str, Item] = {}
        self._vectors: dict[tuple[str, str], FloatArray] = {}
        self._read: set[str] = set()
        self._number = 0
        self.damaged = 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.refresh()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def items(self) -> list[Item]:
        """In the order in which they came."""
        with self._lock:
            return list(self._items.values())

    def item(self, item_id: str) -> Item | None:
        return self._items.get(item_id)

    def vectors(self, space_id: str, item_ids: Sequence[str]) -> list[FloatArray | None]:
        """float32 (d,) each; None where there is none of this space."""
        with self._lock:
            return [self._vectors.get((space_id, item_id)) for item_id in item_ids]

    def append(self, items: Sequence[Item], vectors: Mapping[str, FloatArray]) -> None:
        """vectors: space_id -> float32 (n, d), rows aligned with `items`. On disk when this returns.

        Raises:
            RetryableError: the disk is full or fails; nothing was taken in.
        """
        shard = {
            "format": FORMAT,
            "items": [dict(item) for item in items],
            "vectors": {space: [base64.b64encode(np.asarray(row, dtype="<f4").tobytes()).decode() for row in rows] for space, rows in vectors.items()},
        }
        data = json.dumps(shard, ensure_ascii=True, allow_nan=False, sort_keys=True).encode()
        with self._lock:
            if self._folder is not None:
                name = f"{self._number + 1:08d}-{hashlib.sha256(data).hexdigest()}.json"
                try:
                    write_bytes(self._folder / name, data)
                except OSError as error:
                    raise RetryableError(
                        f"the new items cannot be stored: {error.strerror or error}; nothing was taken in, try again when there is room"
                    ) from None
                self._read.add(name)
            self._number += 1
            self._take(shard)

    def refresh(self) -> None:
        """Read what others wrote since."""
        if self._folder is None:
            return
        with self._lock:
            for name in sorted({path.name for path in self._folder.glob("*.json")} - self._read):
                self._read.add(name)
                match = _NAME.fullmatch(name)
                path = self._folder / name
                try:
                    data = path.read_bytes()
                    if match is None or hashlib.sha256(data).hexdigest() != match["sha256"]:
                        raise DataError("not the bytes that its name says")
                    self._take(json.loads(data))
                    self._number = max(self._number, int(match["number"]))
                except (OSError, ValueError, KeyError, TypeError, DataError) as error:
                    self._set_aside(path, error)

    def _take(self, shard: Mapping[str, Any]) -> None:
        if shard["format"] != FORMAT:
            raise DataError(f"format {shard['format']}, this code reads {FORMAT}")
        decoded = {space: [np.frombuffer(base64.b64decode(row), dtype="<f4").astype(np.float32) for row in rows] for space, rows in shard["vectors"].items()}
        for row, item in enumerate(shard["items"]):
            # The first that came under an id stays: answers were given from it.
            self._items.setdefault(item["item_id"], item)
            for space, rows in decoded.items():
                if self._items[item["item_id"]] == item:
                    self._vectors[space, item["item_id"]] = rows[row]

    def _set_aside(self, path: Path, error: Exception) -> None:
        self.damaged += 1
        _log.error("new items: %s is damaged (%s); it was moved to %s/, send its items again", path, error, DAMAGED)
        try:
            (path.parent / DAMAGED).mkdir(exist_ok=True)
            path.rename(path.parent / DAMAGED / path.name)
        except OSError:
            _log.exception("new items: %s cannot be moved", path)
