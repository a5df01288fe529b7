"""A whole service in a process of its own: `python -m tests.serving.server_process FOLDER PORT OPTIONS`.

FOLDER/registry is a `FolderSource`, FOLDER/new_items the overlay, FOLDER/kept the last bundle; OPTIONS is JSON for `ServiceConfig`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from recsys.serving.assembly import assemble
from recsys.serving.config import ServiceConfig
from recsys.serving.encoder_process import EncoderProcess
from recsys.serving.model_source import BundleStore, open_bundle
from recsys.serving.recommender import Recommender
from recsys.serving.server import serve
from tests.serving.sources import FolderSource

LOADER = "tests.serving.loaders:load_hashed"


class Slow:
    """Histories that take their time: so that requests are under way when the process is told to end."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def history(self, user_id: str) -> list[str] | None:
        import time

        time.sleep(self._seconds)
        return ["i1"]


def main(folder: Path, port: int, options: dict[str, object]) -> None:
    slow = float(options.pop("slow", 0))  # type: ignore[arg-type]
    source, store, encoder = FolderSource(folder / "registry"), BundleStore(folder / "kept"), EncoderProcess(LOADER)
    service = assemble(
        Recommender(open_bundle(source, store), item_encoder=encoder),
        Slow(slow) if slow else None,
        ServiceConfig.parse(options),
        new_items=folder / "new_items",
        source=source,
        store=store,
        item_encoder=encoder,
        poll_seconds=0.2,
    )
    service.stops.append(encoder.close)
    serve(service, port=port, log_level="info")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
