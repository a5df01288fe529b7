"""From a model and options to a `Service` with all its parts."""

from __future__ import annotations

from pathlib import Path

from recsys.serving.config import ServiceConfig
from recsys.serving.features import OnlineFeatures
from recsys.serving.item_encoder import ItemEncoder
from recsys.serving.item_journal import ItemJournal
from recsys.serving.lane import Lane
from recsys.serving.live import LiveModel
from recsys.serving.metrics import Metrics
from recsys.serving.model_source import BundleStore, ModelSource
from recsys.serving.overlay import Overlay
from recsys.serving.recommender import Recommender
from recsys.serving.request_log import RequestLog
from recsys.serving.scoring import Scoring
from recsys.serving.service import Service
from recsys.serving.watcher import POLL_SECONDS, Watcher

WRITERS, WRITE_QUEUE = 2, 64


def assemble(
    model: Recommender,
    features: OnlineFeatures | None = None,
    config: ServiceConfig | None = None,
    *,
    new_items: Path | None = None,
    source: ModelSource | None = None,
    store: BundleStore | None = None,
    item_encoder: ItemEncoder | None = None,
    poll_seconds: float = POLL_SECONDS,
) -> Service:
    """new_items: folder of the overlay's journal; None keeps new items in memory alone. source: followed for other versions; None: never.

    item_encoder: for the models that come; `model` has its own.
    """
    config, metrics, live = config or ServiceConfig(), Metrics(), LiveModel(model)
    metrics.show_model(lambda: live.current)
    live.on_change(metrics.serving)
    overlay = Overlay(live, ItemJournal(new_items), metrics, config.limits.new_items)
    overlay.start()
    log = None if config.request_log is None else RequestLog(config.request_log, metrics, ids=config.ids_in_logs)
    scoring = Scoring(live, features, config, metrics, log=log)
    # The first call loads lazy parts; no client should pay for it.
    scoring.probe()
    workers = config.workers if config.workers is not None else 0 if features is None else 1
    service = Service(scoring, overlay, Lane(workers, config.queue), Lane(WRITERS, WRITE_QUEUE, "writes"))
    if source is not None:
        watcher = Watcher(live, source, overlay, metrics, seconds=poll_seconds, item_encoder=item_encoder, keep=None if store is None else store.keep)
        service.starts.append(watcher.start)
        service.stops.append(watcher.stop)
    if log is not None:
        service.stops.append(log.close)
    return service
