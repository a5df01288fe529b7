"""The configuration of a nightly run: that of a model, and what a schedule needs."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from pipelines.config import ModelConfig
from pipelines.contest import ContestOptions
from pipelines.inspection_config import Limits
from recsys.config import Config

Moment = Literal["promoted", "held", "rejected", "failed", "stopped"]
Seconds = Annotated[float, Field(gt=0)]


class WindowOptions(Config):
    days: Annotated[int, Field(ge=1)] = 1
    """Length of the newest window, which ends with the day of the run: it tests champion and challenger and trains neither."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Newest share of the events before the window; decides when training stops."""


class AttemptConfig(Config):
    """How often and how long a stage is tried."""

    timeout: Seconds = 4 * 3600.0
    """A stage that takes longer is stopped. Its checkpoints and stored vectors stay: the next try goes on from there."""
    timeouts: dict[str, Seconds] = Field(default_factory=dict)
    """Stage (`embed`, `rank`, ...) -> its own."""
    retries: Annotated[int, Field(ge=0)] = 2
    """After a time-out or a failure that may pass (a lost worker, a busy store); never after bad data."""
    wait: Annotated[float, Field(ge=0)] = 30.0
    """Seconds before the first retry; each further one waits twice as long."""


class NotifyConfig(Config):
    """Who is told how a night ended. Off by default; a hook that fails is a line in the log, and no failure of the night."""

    command: tuple[str, ...] = ()
    """Program and arguments, run without a shell; the JSON document is on its standard input."""
    url: str | None = None
    """The document is posted there; on loopback alone, where a relay of yours knows the way out."""
    on: tuple[Moment, ...] = ("promoted", "held", "rejected", "failed", "stopped")
    timeout: Seconds = 10.0

    @model_validator(mode="after")
    def _on_loopback(self) -> Self:
        if self.url is not None:
            parts = urlsplit(self.url)
            host = parts.hostname or ""
            try:
                local = host == "localhost" or ipaddress.ip_address(host).is_loopback
            except ValueError:
                local = False
            if parts.scheme not in ("http", "https") or not local:
                raise ValueError(f"url {self.url!r}: expected http://127.0.0.1:PORT/... or another loopback address; run a relay there, or use `command`")
        return self


class NightlyConfig(ModelConfig):
    """Everything that `recsys pipeline nightly` needs. `data.source` is of `kind: daily`."""

    warm_start: bool = False
    """Training begins with the champion's weights; else from scratch."""
    window: WindowOptions = WindowOptions()
    checks: Limits = Limits()
    contest: ContestOptions = ContestOptions()
    attempts: AttemptConfig = AttemptConfig()
    notify: NotifyConfig = NotifyConfig()

    @model_validator(mode="after")
    def _reads_days(self) -> Self:
        if self.data.source.kind != "daily":
            raise ValueError(f"data.source: kind {self.data.source.kind!r}; a nightly run reads a folder of days: kind: daily")
        return self
