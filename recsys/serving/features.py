"""The seam between the service and a feature store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Event:
    """One interaction as it happens. time: Unix seconds, UTC."""

    user_id: str
    item_id: str
    time: float


class OnlineFeatures(Protocol):
    """User state that is fresher than the published snapshot."""

    def history(self, user_id: str) -> list[str] | None:
        """item_ids of the user's events, oldest first; None for a user that the store does not know. Any exception is
        taken for a failing store."""
        ...


@runtime_checkable
class TakesEvents(Protocol):
    """An `OnlineFeatures` that can also be written to. A user that it did not know is known afterwards."""

    def push(self, events: Sequence[Event]) -> None:
        """Append `events`, in their order, to their users' histories; the next `history` shows them. Any exception is
        taken for a failing store: the caller is told to send the events again."""
        ...
