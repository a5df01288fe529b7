"""One run in a process of its own: peak memory belongs to one run, and a crash ends one run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from recsys.errors import RetryableError


def run_module(module: str, arguments: Sequence[str], *, named: int) -> None:
    """`python -m module arguments`. named: leading arguments that say which run it is.

    Raises:
        RetryableError: it did not end well; the same command resumes it.
    """
    done = subprocess.run([sys.executable, "-m", module, *arguments])
    if done.returncode:
        raise RetryableError(f"the run {' '.join(arguments[:named])} ended with exit code {done.returncode}; the same command resumes it")
