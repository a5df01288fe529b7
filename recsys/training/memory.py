"""Peak memory of a process."""

from __future__ import annotations

import contextlib
import re
import resource
from pathlib import Path


def peak_mb() -> float:
    """Highest resident memory of this process so far, in MiB. From VmHWM where there is one: `ru_maxrss` of a child begins
    with the memory of the parent that started it."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        if found:
            return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
