"""`Watcher`: follows the alias of the registry. A good version is swapped in, a bad one changes nothing but a metric."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal

from recsys.errors import RecsysError, RetryableError
from recsys.serving.bundle import Bundle
from recsys.serving.examination import examine
from recsys.serving.item_encoder import ItemEncoder
from recsys.serving.live import LiveModel
from recsys.serving.metrics import Metrics
from recsys.serving.model_source import ModelSource
from recsys.serving.overlay import Overlay
from recsys.serving.recommender import Recommender

Outcome = Literal["unreachable", "unchanged", "swapped", "rolled_back", "refused", "failed"]
POLL_SECONDS, REFUSED_SECONDS = 5.0, 600.0
_log = logging.getLogger(__name__)


class Watcher:
    """keep: told of each bundle that came to serve. refused_seconds: a version that was refused is looked at again after so long."""

    def __init__(
        self,
        live: LiveModel,
        source: ModelSource,
        overlay: Overlay,
        metrics: Metrics,
        *,
        seconds: float = POLL_SECONDS,
        item_encoder: ItemEncoder | None = None,
        keep: Callable[[Bundle], None] | None = None,
        refused_seconds: float = REFUSED_SECONDS,
    ) -> None:
        self._live, self._source, self._overlay, self._metrics = live, source, overlay, metrics
        self._seconds, self._item_encoder, self._keep, self._refused_seconds = seconds, item_encoder, keep, refused_seconds
        self._refused: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """A version that is just being loaded is not waited for."""
        self._stop.set()

    def poll(self) -> Outcome:
        """Look once. Raises nothing that a registry, a disk or a version can cause."""
        try:
            named = self._source.version()
        except RetryableError as error:
            self._metrics.registry_up.set(0)
            _log.warning("%s; version %s goes on answering", error, self._live.current.version)
            return "unreachable"
        self._metrics.registry_up.set(1)
        if named is None or named == self._live.current.bundle.version or time.monotonic() < self._refused.get(named, 0.0):
            return "unchanged"
        outcome = self._change_to(named)
        self._metrics.swaps.labels(outcome).inc()
        return outcome

    def _change_to(self, version: str) -> Outcome:
        started = time.perf_counter()
        try:
            previous = self._live.previous
            if previous is not None and previous.bundle.version == version:
                with self._live.writing:
                    self._overlay.bring_into(previous)
                    self._live.rollback()
                outcome: Outcome = "rolled_back"
            else:
                bundle = self._source.fetch(version)
                model = Recommender(bundle, item_encoder=self._item_encoder)
                examine(model, self._live.current)
                # What takes time is done before the lock, what came meanwhile under it.
                self._overlay.bring_into(model)
                with self._live.writing:
                    self._overlay.bring_into(model)
                    self._live.swap(model)
                outcome = "swapped"
        except (RetryableError, OSError, MemoryError) as error:
            _log.error("version %s cannot be had yet, %s goes on answering: %s", version, self._live.current.version, error)
            return "failed"
        except Exception as error:
            # Whatever a version can do wrong, the one that serves does not suffer.
            self._refused[version] = time.monotonic() + self._refused_seconds
            surprise = not isinstance(error, RecsysError)
            _log.error("version %s is refused, %s goes on answering: %s", version, self._live.current.version, error, exc_info=surprise)
            return "refused"
        self._refused.clear()
        self._overlay.show()
        _log.info("version %s answers (%s, %.2f s)", version, outcome, time.perf_counter() - started)
        if self._keep is not None:
            self._keep(self._live.current.bundle)
        return outcome

    def _work(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self.poll()
                self._overlay.follow()
            except RetryableError as error:
                _log.warning("new items are not taken in yet: %s", error)
            except Exception:
                # Nothing may end the watch.
                _log.exception("the watch failed once")
