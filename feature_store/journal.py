"""Events that were pushed since the last batch, kept so that a newly published version does not forget them."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recsys.artifacts.atomic import write_bytes


@dataclass(frozen=True)
class Pushed:
    """time: Unix seconds, UTC."""

    user_id: str
    item_id: str
    time: float


class Journal:
    """JSON lines in `root`. What is appended survives this process (not a loss of power: an event is not worth a sync)."""

    def __init__(self, root: Path) -> None:
        self._root, self._file = root, root / "pushed.jsonl"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Waits for its turn: whoever changes a user's state, or switches to another version, holds it. On one machine, or on a shared
        file system that keeps locks."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / ".pushed.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def append(self, events: Sequence[Pushed]) -> None:
        lines = "".join(json.dumps([e.user_id, e.item_id, e.time]) + "\n" for e in events)
        with self._file.open("ab+") as file:
            end = file.seek(0, 2)
            if end:
                file.seek(end - 1)
            torn = bool(end) and file.read(1) != b"\n"
            file.write(("\n" if torn else "").encode() + lines.encode())

    def events(self) -> list[Pushed]:
        """In the order of their times; events of one time in the order of their arrival, each once. A line torn by a crash is skipped."""
        try:
            lines = self._file.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found: dict[Pushed, None] = {}
        for line in lines:
            try:
                user_id, item_id, time = json.loads(line)
            except ValueError:
                continue
            found[Pushed(user_id, item_id, float(time))] = None
        return sorted(found, key=lambda event: event.time)

    def keep(self, events: Iterable[Pushed]) -> None:
        """Only these from now on."""
        write_bytes(self._file, "".join(json.dumps([e.user_id, e.item_id, e.time]) + "\n" for e in events).encode())
