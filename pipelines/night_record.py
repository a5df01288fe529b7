"""The record of a night: what it compared with, what it tried, how it ended. One file a day; every state is written before it is acted on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from recsys.artifacts.atomic import crash_point, read_json, write_json

RUNNING, DONE, FAILED, STOPPED = "running", "done", "failed", "stopped"


@dataclass(frozen=True)
class Night:
    """champion: version that it compares with; None: there was none.  earlier: day of the night that its vectors are checked against.
    state: "running" in a file whose lock is free means that the process died.  tries: one a step and try.
    artifacts: step -> folder.  outcome: "promoted", "held", "rejected", "failed" or "stopped", once it ended."""

    day: str
    config: str
    champion: str | None
    earlier: str | None
    state: str = RUNNING
    started: str = ""
    ended: str = ""
    processes: int = 1
    tries: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, str] = field(default_factory=dict)
    version: str | None = None
    outcome: str = ""
    reason: str = ""


class NightBook:
    """The nights of one model, in `root/nightly/<name>/`."""

    def __init__(self, root: Path, name: str) -> None:
        self.folder = root / "nightly" / name

    def read(self, day: date) -> Night | None:
        try:
            return Night(**read_json(self.folder / f"{day}.json"))
        except FileNotFoundError:
            return None

    def write(self, night: Night) -> Night:
        write_json(self.folder / f"{night.day}.json", asdict(night))
        return night

    def begin(self, day: date, config: str, champion: str | None, before: Night | None) -> Night:
        """A first or a further process of this night. before: what `read` gave."""
        if before is not None and before.config == config:
            return self.write(replace(before, champion=champion, state=RUNNING, ended="", processes=before.processes + 1, outcome="", reason=""))
        earlier = self.last_done(day)
        return self.write(Night(str(day), config, champion, earlier.day if earlier else None, started=_now()))

    def end(self, night: Night, state: str, outcome: str, reason: str, *, artifacts: dict[str, str] | None = None, version: str | None = None) -> Night:
        crash_point("night ends")
        ended = self.write(replace(night, state=state, outcome=outcome, reason=reason, ended=_now(), artifacts=artifacts or {}, version=version))
        crash_point("night ended")
        return ended

    def last_done(self, before: date) -> Night | None:
        """The newest night before `before` that went through to the end."""
        days = sorted((path.stem for path in self.folder.glob("????-??-??.json") if path.stem < str(before)), reverse=True)
        nights = (self.read(date.fromisoformat(day)) for day in days)
        return next((night for night in nights if night is not None and night.state == DONE), None)

    def nights(self) -> list[Night]:
        """Oldest first."""
        return [Night(**read_json(path)) for path in sorted(self.folder.glob("????-??-??.json"))]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
