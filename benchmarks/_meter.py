"""Seconds and peak memory of a piece of work. Standard library only: the peers' environments import it too."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_mb() -> float:
    """Highest resident memory of this process so far, in MB (10**6 bytes).

    From VmHWM: `ru_maxrss` of a child begins with the memory of the parent that started it.
    """
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        if found:
            return int(found[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def reset_peak() -> None:
    """The peak begins anew at what is held now; where the system cannot, it stays that of the whole process."""
    with suppress(OSError):
        _CLEAR.write_text("5")


@contextmanager
def metered() -> Iterator[dict[str, float]]:
    """Fills "seconds" and "peak_mb" (of the whole process, what it held before included) when the block ends."""
    cost: dict[str, float] = {}
    reset_peak()
    started = time.perf_counter()
    yield cost
    cost["seconds"] = round(time.perf_counter() - started, 3)
    cost["peak_mb"] = round(peak_mb(), 1)
