"""`ImageSource`: from a row of the items table to the bytes of its picture, or to the reason why there are none. Rows are untrusted."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, NamedTuple

import polars as pl
from pydantic import Field

from recsys.artifacts.atomic import write_bytes
from recsys.config import Config
from recsys.data.catalog import IMAGE, IMAGE_PATH, IMAGE_URL
from recsys.embeddings.quarantine import Quarantine
from recsys.errors import ImageError

THREADS = 16
"""Rows that are read at once: waiting for disks and servers, not computing."""
_DIGEST = 32


class ImageSourceConfig(Config):
    """Where pictures may come from. A row's `image` (bytes) is taken before its `image_path`, and that before its `image_url`."""

    root: Path | None = None
    """Folder that `image_path` is relative to, and that no path may leave, by `..` or by a link. Null: any file, relative to the working folder."""
    allow_image_urls: bool = False
    """Fetch `image_url` over http and https. Whoever writes the table then decides which servers this machine asks."""
    max_bytes: Annotated[int, Field(ge=1)] = 20_000_000
    """Of a picture's file."""
    url_seconds: Annotated[float, Field(gt=0)] = 10.0
    """For one picture, redirects included."""


class Picture(NamedTuple):
    """data: the file's bytes, not yet decoded; None without a picture. reason: why a picture that the row names is not there."""

    data: bytes | None = None
    reason: str | None = None


class ImageSource:
    """`downloads`: a folder where fetched pictures are kept, and the URLs that failed: neither is asked for again. None keeps nothing."""

    def __init__(self, config: ImageSourceConfig, downloads: Path | None = None) -> None:
        self.config = config
        self._downloads = downloads
        self._failed = Quarantine(downloads / "failed") if downloads is not None and config.allow_image_urls else None
        self._adding = threading.Lock()

    def read(self, table: pl.DataFrame) -> list[Picture]:
        """One a row of a catalog's table."""
        columns = [table[name].to_list() if name in table.columns else [None] * len(table) for name in (IMAGE, IMAGE_PATH, IMAGE_URL)]
        rows = list(zip(*columns, strict=True))
        if not any(path or url for _, path, url in rows):
            return [self._one(*row) for row in rows]
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(lambda row: self._one(*row), rows))

    def retry(self) -> None:
        """Forget the URLs that failed."""
        if self._failed is not None:
            self._failed.forget()

    def _one(self, data: bytes | None, path: str | None, url: str | None) -> Picture:
        try:
            if data is not None:
                return Picture(_within(data, self.config.max_bytes))
            if path:
                return Picture(self._file(path))
            if url:
                return Picture(self._fetched(url))
            return Picture()
        except ImageError as error:
            return Picture(None, str(error))

    def _file(self, name: str) -> bytes:
        path = Path(name) if self.config.root is None else self.config.root / name
        try:
            if self.config.root is not None:
                path = Path(os.path.realpath(path))
                if not path.is_relative_to(os.path.realpath(self.config.root)):
                    raise ImageError(f"image_path {name!r} leads out of {self.config.root}")
            # Non-blocking: a pipe without a writer would hold the run for ever.
            with open(path, "rb", opener=lambda file, flags: os.open(file, flags | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ImageError(f"image_path {name!r} is no regular file")
                return _within(file.read(self.config.max_bytes + 1), self.config.max_bytes)
        except FileNotFoundError:
            raise ImageError(f"image_path {name!r}: no such file") from None
        except (OSError, ValueError) as error:
            raise ImageError(f"image_path {name!r}: cannot be read ({getattr(error, 'strerror', None) or error})") from None

    def _fetched(self, url: str) -> bytes:
        if not self.config.allow_image_urls:
            raise ImageError("the picture is a URL, which is not fetched; set images.allow_image_urls: true to allow it")
        if self._downloads is None or self._failed is None:
            return fetch(url, self.config)
        key = hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()
        kept = self._downloads / key.hex()[:2] / key.hex()
        if (data := _verified(kept)) is not None:
            return _within(data, self.config.max_bytes)
        if (reason := self._failed.reason(key)) is not None:
            raise ImageError(reason)
        try:
            data = fetch(url, self.config)
        except ImageError as error:
            with self._adding:
                self._failed.add({key: str(error)})
            raise
        write_bytes(kept, hashlib.sha256(data).digest() + data)
        return data


def fetch(url: str, config: ImageSourceConfig) -> bytes:
    """Raises ImageError: no http(s) URL, no answer in time, another status than 200, or more than `max_bytes`."""
    import httpx

    deadline = time.monotonic() + config.url_seconds
    try:
        with (
            httpx.Client(follow_redirects=True, max_redirects=5, timeout=config.url_seconds) as client,
            client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            if answer.status_code != 200:
                raise ImageError(f"image_url {url!r}: status {answer.status_code}")
            return _within(b"".join(_until(answer.iter_raw(), deadline, config.max_bytes, url)), config.max_bytes)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ImageError(f"image_url {url!r}: {type(error).__name__}: {error}") from None


def _until(chunks: Iterator[bytes], deadline: float, limit: int, url: str) -> Iterator[bytes]:
    """A server that sends a byte a second keeps every read in time; the sum is what counts."""
    size = 0
    for chunk in chunks:
        if time.monotonic() > deadline:
            raise ImageError(f"image_url {url!r}: not finished in time")
        yield chunk
        size += len(chunk)
        if size > limit:
            return


def _within(data: bytes, limit: int) -> bytes:
    if not data:
        raise ImageError("the picture is empty (0 bytes)")
    if len(data) > limit:
        raise ImageError(f"the picture has more than {limit:,} bytes")
    return data


def _verified(path: Path) -> bytes | None:
    """None: not there, or damaged: then it is fetched again."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return content[_DIGEST:] if hashlib.sha256(content[_DIGEST:]).digest() == content[:_DIGEST] else None
