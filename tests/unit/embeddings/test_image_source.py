import os
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from recsys.embeddings.image_source import ImageSource, ImageSourceConfig, Picture

PIXELS = b"\xff\xd8 these bytes are not decoded here"


def rows(**columns: list[object]) -> pl.DataFrame:
    return pl.DataFrame(columns, schema={name: pl.Binary if name == "image" else pl.String for name in columns})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    (root / "inside").mkdir(parents=True)
    (root / "inside" / "a.jpg").write_bytes(PIXELS)
    (root / "empty.jpg").write_bytes(b"")
    (root / "large.jpg").write_bytes(b"x" * 101)
    (root / "folder.jpg").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link.jpg").symlink_to(tmp_path / "secret")
    (root / "good-link.jpg").symlink_to(root / "inside" / "a.jpg")
    os.mkfifo(root / "pipe.jpg")
    return root


def test_paths_below_the_root_and_nothing_else(root: Path, tmp_path: Path) -> None:
    cases: list[tuple[str | None, str | None]] = [
        ("inside/a.jpg", None),
        ("inside/../inside/a.jpg", None),
        ("good-link.jpg", None),
        (str(root / "inside/a.jpg"), None),
        ("none.jpg", "no such file"),
        ("empty.jpg", "empty"),
        ("large.jpg", "more than 100 bytes"),
        ("../secret", "leads out of"),
        (str(tmp_path / "secret"), "leads out of"),
        ("link.jpg", "leads out of"),
        ("inside/../../secret", "leads out of"),
        ("folder.jpg", "no regular file|cannot be read"),
        ("pipe.jpg", "no regular file"),
        ("nul\0.jpg", "cannot be read"),
        ("x" * 5000, "cannot be read"),
    ]
    found = ImageSource(ImageSourceConfig(root=root, max_bytes=100)).read(rows(image_path=[name for name, _ in cases]))
    for (name, reason), picture in zip(cases, found, strict=True):
        if reason is None:
            assert picture == Picture(PIXELS), name
        else:
            assert picture.data is None and picture.reason is not None and re.search(reason, picture.reason), (name, picture)


def test_without_a_root_paths_are_as_on_the_command_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    names: list[object] = ["inside/a.jpg", "../pictures/inside/a.jpg", str(root / "inside/a.jpg")]
    assert ImageSource(ImageSourceConfig()).read(rows(image_path=names)) == [Picture(PIXELS)] * 3


def test_bytes_come_before_paths_and_nothing_is_no_fault() -> None:
    table = rows(item_id=["a", "b", "c"], image=[PIXELS, None, b""], image_path=[None, None, "none.jpg"])
    assert ImageSource(ImageSourceConfig()).read(table) == [Picture(PIXELS), Picture(), Picture(None, "the picture is empty (0 bytes)")]
    assert ImageSource(ImageSourceConfig()).read(rows(item_id=["a"])) == [Picture()]


class Shop(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 (the server makes one handler a request)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/missing.jpg":
            self.send_error(404)
            return
        if self.path == "/moved.jpg":
            self.send_response(302)
            self.send_header("Location", "/a.jpg")
            self.end_headers()
            return
        if self.path == "/away.jpg":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        try:
            if self.path == "/drip.jpg":
                for _ in range(100):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.05)
            elif self.path == "/endless.jpg":
                while True:
                    self.wfile.write(b"x" * 65536)
            else:
                self.wfile.write(PIXELS)
        except OSError:
            pass

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Shop.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_urls_are_not_fetched_unless_allowed(shop: str) -> None:
    (picture,) = ImageSource(ImageSourceConfig()).read(rows(image_url=[f"{shop}/a.jpg"]))
    assert picture.data is None and picture.reason is not None and "allow_image_urls" in picture.reason and not Shop.asked


def test_urls_are_limited_in_size_and_time_and_asked_once(shop: str, tmp_path: Path) -> None:
    cases = {
        f"{shop}/a.jpg": None,
        f"{shop}/moved.jpg": None,
        f"{shop}/missing.jpg": "status 404",
        f"{shop}/away.jpg": "UnsupportedProtocol",
        f"{shop}/endless.jpg": "more than 100,000 bytes",
        f"{shop}/drip.jpg": "not finished in time|Timeout",
        "http://127.0.0.1:9/a.jpg": "ConnectError",
        "file:///etc/passwd": "UnsupportedProtocol",
        "covers/a.jpg": "UnsupportedProtocol",
    }
    config = ImageSourceConfig(allow_image_urls=True, max_bytes=100_000, url_seconds=1)
    for _ in range(2):
        started = time.monotonic()
        for (url, reason), picture in zip(cases.items(), ImageSource(config, tmp_path).read(rows(image_url=list(cases))), strict=True):
            assert (picture.data == PIXELS) if reason is None else (picture.reason is not None and re.search(reason, picture.reason)), (url, picture)
        assert time.monotonic() - started < 5
    asked = len(Shop.asked)
    assert asked == 7  # each once, and a.jpg again where moved.jpg leads
    kept = next(path for path in tmp_path.rglob("*") if path.is_file() and path.suffix == "")
    kept.write_bytes(b"damaged" * 10)
    source = ImageSource(config, tmp_path)
    source.retry()
    source.read(rows(image_url=list(cases)))
    assert len(Shop.asked) > asked
    assert ImageSource(config, tmp_path).read(rows(image_url=[f"{shop}/a.jpg"])) == [Picture(PIXELS)]
