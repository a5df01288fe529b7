"""One JSON line a request and an event, for machines that read logs. Without ids of users and items, unless those were asked for."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from starlette.types import Scope

NOTES = "recsys.notes"
"""Key of the scope under which a route leaves what the line shall say of its answer."""
_log = logging.getLogger("recsys.access")


def log_request(scope: Scope, route: str, status: int, seconds: float, request_id: str) -> None:
    if _log.isEnabledFor(logging.INFO):
        notes: dict[str, Any] = scope.get(NOTES, {})
        line = {"request_id": request_id, "method": scope["method"], "route": route, "status": status, "ms": round(1000 * seconds, 3)}
        _log.info("request", extra={"fields": {**line, **notes}})


class JsonFormatter(logging.Formatter):
    """{"time": ..., "level": ..., "logger": ..., "message": ..., and the fields of the record}."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def log_as_json(level: str) -> None:
    """From now on the process logs JSON lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("recsys", "uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(level.upper())
