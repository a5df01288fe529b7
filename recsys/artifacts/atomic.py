"""Writing that survives a crash: temporary name, fsync, rename."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

CRASH_VARIABLE = "RECSYS_CRASH_AT"


def crash_point(name: str) -> None:
    """A moment at which a test may kill this process: just before and just after something becomes visible to others.

    RECSYS_CRASH_AT=N kills it (SIGKILL, nothing is cleaned up) at the N-th point that it passes. Unset, as always outside tests, this
    does nothing.
    """
    if _crash is not None:
        _crash(name)


def arm_crash(act: Callable[[str], None] | None) -> None:
    """What each `crash_point` does from now on, given its name; None: nothing."""
    global _crash
    _crash = act


def crash_at(number: int) -> Callable[[str], None]:
    left = itertools.count(number - 1, -1)
    return lambda name: None if next(left) else os.kill(os.getpid(), signal.SIGKILL)


_crash: Callable[[str], None] | None = None
if CRASH_VARIABLE in os.environ:
    arm_crash(crash_at(int(os.environ[CRASH_VARIABLE])))


def write_bytes(path: Path, data: bytes) -> None:
    """Write through a temporary file in the same folder. On any error (a full disk too) the old file stays."""
    write_parts(path, [data])


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """The same, one part after the other: memory holds one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        crash_point(f"write {path.name}")
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        crash_point(f"rename {path.name}")
        temporary.replace(path)
        crash_point(f"renamed {path.name}")
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_by_digest(folder: Path, suffix: str, parts: Iterable[bytes | memoryview]) -> Path:
    """Write `parts` one after the other into `folder/<sha256 of the bytes><suffix>`, whole or not at all; memory holds one part."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    running = hashlib.sha256()
    try:
        with temporary.open("xb") as file:
            for part in parts:
                running.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        path = folder / f"{running.hexdigest()}{suffix}"
        crash_point(f"rename by digest {suffix}")
        temporary.replace(path)
        crash_point(f"renamed by digest {suffix}")
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(folder)
    return path


def write_json(path: Path, value: object) -> None:
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_npy(path: Path, array: npt.NDArray[Any]) -> None:
    """npy without pickle; object arrays are refused."""
    import io

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def read_npy(path: Path, *, mapped: bool = False) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    return array


def fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
