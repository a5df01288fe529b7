"""One line a step on stderr, with the seconds since the start."""

from __future__ import annotations

import sys
import time

_STARTED = time.perf_counter()


def say(text: str) -> None:
    print(f"[{time.perf_counter() - _STARTED:6.0f} s] {text}", file=sys.stderr, flush=True)
