"""What the service counts, for Prometheus. No label and no value holds an id of a user or an item."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from recsys.serving.recommender import Recommender

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
STEP_BUCKETS = (0.0001, 0.0002, 0.0005, *BUCKETS)


class Metrics:
    """One registry an app: two apps in one process do not share counts."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.latency = Histogram("recsys_request_seconds", "Time from request to answer", ["route"], buckets=BUCKETS, registry=registry)
        self.requests = Counter("recsys_requests", "Answers", ["route", "status"], registry=registry)
        self.rejected = Counter("recsys_rejected", "Requests that were turned away", ["reason"], registry=registry)
        self.waiting = Gauge("recsys_queue_requests", "Requests that wait for a worker or are with one", registry=registry)
        self.steps = Histogram("recsys_step_seconds", "Time of one step of an answer", ["step"], buckets=STEP_BUCKETS, registry=registry)
        self.answers = Counter("recsys_answers", "Personal answers by what made them: fused, cached_vector, popularity", ["step"], registry=registry)
        self.fallbacks = Counter("recsys_fallbacks", "Answers that were not made by the fused model, and why", ["step", "reason"], registry=registry)
        self.unscored = Counter("recsys_candidates_unscored", "Candidates answered with null", ["reason"], registry=registry)
        self.cold = Counter("recsys_candidates_cold", "Candidates scored that have no interactions in the published data", registry=registry)
        self.ignored = Counter("recsys_history_items_ignored", "History items that the model does not know", registry=registry)
        self.unknown_users = Counter("recsys_unknown_users", "Requests for a user that nobody knows", registry=registry)
        self.events = Counter("recsys_events", "Events taken in", registry=registry)
        self.new_items = Gauge("recsys_new_items", "Items of the overlay: scorable, or left out by the model that serves", ["state"], registry=registry)
        self.damaged = Gauge("recsys_overlay_damaged_files", "Files of the overlay that were set aside when it was opened", registry=registry)
        self.model = Gauge("recsys_model_info", "The model that answers; always 1", ["name", "version"], registry=registry)
        self.model_age = Gauge("recsys_model_age_seconds", "Since the model that answers was written", registry=registry)
        self.snapshot_age = Gauge("recsys_snapshot_age_seconds", "Since the item vectors that answer last changed: a swap, or new items", registry=registry)
        self.swaps = Counter(
            "recsys_swaps", "What came of versions: swapped, rolled_back, refused (bad), failed (to be tried again)", ["outcome"], registry=registry
        )
        self.registry_up = Gauge("recsys_registry_up", "1: the registry answered the last poll", registry=registry)
        self.logged = Counter("recsys_logged_rows", "Rows of the request log by what became of them: written, dropped", ["outcome"], registry=registry)

    def show_model(self, model: Callable[[], Recommender]) -> None:
        """Follow the model that serves: its age is taken when it is asked for."""
        self.model_age.set_function(lambda: _age(model().bundle.created))
        self.serving(model())

    def serving(self, model: Recommender) -> None:
        """Another model, or the same with other items, answers from now on."""
        self.model.clear()
        self.model.labels(model.name, model.version).set(1)
        changed = time.time()
        self.snapshot_age.set_function(lambda: time.time() - changed)


def _age(created: str) -> float:
    """Seconds; NaN for a bundle that does not say when it was written."""
    if not created:
        return float("nan")
    return (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()
