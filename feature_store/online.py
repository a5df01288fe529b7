"""Online features read from the live version: what `recsys.serving` knows as `OnlineFeatures`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from feature_store.publish import CURRENT
from recsys.errors import RetryableError

_Stamp = tuple[int, int]


class FeastOnlineFeatures:
    """Reads by user; follows `current`, so that a publish is seen by the next read. Safe to call from many threads."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None
        self._version = ""
        self._store: Any = None
        self._refs: Any = None

    @property
    def version(self) -> str:
        """Name of the version that answered last; empty before the first read."""
        return self._version

    def history(self, user_id: str) -> list[str] | None:
        """Recent item_ids of a user, oldest first; None when the store does not know the user.

        Raises:
            RetryableError: nothing is published yet, or the store cannot be read.
        """
        with self._lock:
            try:
                return self._read(user_id)
            except Exception as first:
                # A second publish may have removed the version between reading its name and opening it.
                self._stamp = None
                try:
                    return self._read(user_id)
                except Exception:
                    raise RetryableError(f"the online features under {self._root} cannot be read: {first}; publish them again if this lasts") from first

    def _read(self, user_id: str) -> list[str] | None:
        self._follow()
        response = self._store.get_online_features(features=self._refs, entity_rows=[{"user_id": user_id}]).to_dict()
        if response["n_interactions"][0] is None:
            return None
        return list(response["recent_item_ids"][0] or [])

    def _follow(self) -> None:
        pointer = self._root / CURRENT
        status = pointer.stat()
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return
        version = pointer.read_text(encoding="utf-8").strip()
        folder = self._root / "versions" / version
        database = folder / "data" / "online_store.db"
        if not database.is_file():  # SQLite would create an empty one
            raise FileNotFoundError(database)
        from feast import FeatureStore

        self._store = FeatureStore(repo_path=str(folder))
        self._refs = ["user_state:recent_item_ids", "user_state:n_interactions"]
        self._version = version
        self._stamp = stamp
