"""The seam between the service and a feature store."""

from __future__ import annotations

from typing import Protocol


class OnlineFeatures(Protocol):
    """User state that is fresher than the published snapshot."""

    def history(self, user_id: str) -> list[str] | None:
        """item_ids of the user's events, oldest first; None for a user that the store does not know. Any exception is
        taken for a failing store."""
        ...
