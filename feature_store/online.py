"""Online features read from the live version: what `recsys.serving` knows as `OnlineFeatures` and `TakesEvents`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from feature_store.journal import Journal, Pushed
from feature_store.online_store import open_store
from feature_store.publish import CURRENT, grown_state, write_states
from feature_store.tables import EVENT_TIMESTAMP
from recsys.errors import DataError, RetryableError
from recsys.serving.features import Event

_Stamp = tuple[int, int]
T = TypeVar("T")
STATE = ("recent_item_ids", "n_interactions", "last_timestamp")


class FeastOnlineFeatures:
    """Reads and pushes by user; follows `current`, so that a publish is seen by the next read. Safe to call from many threads.

    version: read this one, live or not, and none else; it takes no events.
    """

    def __init__(self, root: Path, version: str | None = None) -> None:
        self._root = root.absolute()
        self._lock = threading.Lock()
        self._fixed = version
        self._journal = Journal(self._root)
        self._stamp: _Stamp | None = None
        self._version = ""
        self._store: Any = None

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
            row = self._tried(lambda: self._row(user_id, STATE[:2]))
        return None if row is None else list(row["recent_item_ids"] or [])

    def push(self, events: Sequence[Event]) -> None:
        """Append live events, in their order, to the state of their users: the next `history` shows them, and so does every version
        that is published before a batch holds them. A user that the store did not know is known afterwards.

        Raises:
            RetryableError: the store cannot be written; send the events again.  DataError: this reader is bound to one version.
        """
        if self._fixed is not None:
            raise DataError(f"version {self._fixed} of the features is read only; push events to the live one")
        of_user: dict[str, list[Pushed]] = {}
        for event in events:
            of_user.setdefault(event.user_id, []).append(Pushed(event.user_id, event.item_id, float(event.time)))
        if not of_user:
            return

        def write() -> None:
            rows = [grown_state(user_id, self._row(user_id, STATE, stamped=True), own) for user_id, own in of_user.items()]
            write_states(self._store, rows)

        with self._lock, self._journal.lock():
            self._tried(write)
            self._journal.append([event for own in of_user.values() for event in own])

    def _tried(self, attempt: Callable[[], T]) -> T:
        try:
            self._follow()
            return attempt()
        except Exception as first:
            # A second publish may have removed the version between reading its name and opening it.
            self._stamp = None
            try:
                self._follow()
                return attempt()
            except Exception:
                raise RetryableError(f"the online features under {self._root} cannot be read or written: {first}; publish them again if this lasts") from first

    def _row(self, user_id: str, names: Sequence[str], *, stamped: bool = False) -> dict[str, Any] | None:
        refs = [f"user_state:{name}" for name in names]
        response = self._store.get_online_features(features=refs, entity_rows=[{"user_id": user_id}]).to_dict(include_event_timestamps=stamped)
        if response["n_interactions"][0] is None:
            return None
        row = {name: response[name][0] for name in names}
        if stamped:
            row[EVENT_TIMESTAMP] = datetime.fromtimestamp(response["n_interactions__ts"][0], UTC)
        return row

    def _follow(self) -> None:
        version, stamp = self._fixed, (0, 0)
        if version is None:
            pointer = self._root / CURRENT
            status = pointer.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return
        version = version or (self._root / CURRENT).read_text(encoding="utf-8").strip()
        folder = self._root / "versions" / version
        options = yaml.safe_load((folder / "feature_store.yaml").read_text(encoding="utf-8"))["online_store"]
        if options["type"] == "sqlite" and not (folder / options["path"]).is_file():  # SQLite would create an empty one
            raise FileNotFoundError(folder / options["path"])
        self._store = open_store(folder)
        self._version = version
        self._stamp = stamp
