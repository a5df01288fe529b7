"""What the outside world offers to a run: the registry, the feature store, the scoring service."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from pipelines.publish import Services
from recsys.artifacts.artifact import Artifact
from recsys.errors import RetryableError
from recsys.serving.features import OnlineFeatures
from recsys.serving.recommender import Recommender
from recsys.tracking import Tracker, default_tracking_uri

START_SECONDS = 30


def make_services(root: Path) -> Services:
    """Everything below `root`, except where RECSYS_TRACKING_URI names another registry."""
    return Services(
        registry=lambda: MlflowRegistry(Tracker(default_tracking_uri(root))),
        publish_features=lambda users, items: _publish_features(root, users, items),
        online_features=lambda: _feast(root),
        serving=serving,
    )


def online_features(root: Path) -> OnlineFeatures | None:
    """The live features below `root`; None before the first publish: then the service reads the published snapshot."""
    return _feast(root) if (root / "feature_store" / "current").exists() else None


class MlflowRegistry:
    """Logs a release as one MLflow run and registers its bundle."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def champion(self, name: str) -> Mapping[str, Any] | None:
        found = self._tracker.champion(name)
        return None if found is None else {"version": found.version, "ndcg@10": found.run_metrics["ndcg_at_10"], "split_hash": found.tags.get("split_hash", "")}

    def release(
        self,
        name: str,
        bundle: Artifact,
        *,
        alias: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        histories: Mapping[str, list[dict[str, float]]],
        files: list[Path],
    ) -> str:
        tags = {"split_hash": str(params["split_hash"]), "code_version": bundle.manifest.code_version}
        with self._tracker.run(name, tags) as run:
            run.log_params(params)
            run.log_metrics(metrics)
            for model, history in histories.items():
                run.log_history([{f"train/{model}/{key}": value for key, value in row.items() if key != "epoch"} for row in history])
            for file in files:
                run.log_files(file, "report")
            version = self._tracker.register(name, bundle.path, run_id=run.run_id, tags=tags)
        self._tracker.set_alias(name, alias, version)
        return version


@contextmanager
def serving(recommender: Recommender, features: OnlineFeatures) -> Iterator[str]:
    """The real service on a free loopback port, in a thread of this process; gives its base URL.

    Raises:
        RetryableError: it was not ready within 30 seconds.
    """
    import uvicorn

    from recsys.serving.app import create_app
    from recsys.serving.config import ServiceConfig

    # The model itself is on trial: nothing may answer in its place.
    app = create_app(recommender, features, config=ServiceConfig(degrade=False, deadline_ms=30_000))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, name="scorer", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            if time.monotonic() > deadline or not thread.is_alive():
                raise RetryableError(f"the scoring service did not start on port {port}")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def _publish_features(root: Path, users: pl.DataFrame, items: pl.DataFrame) -> None:
    from feature_store.publish import publish

    publish(root / "feature_store", users, items)


def _feast(root: Path) -> OnlineFeatures:
    from feature_store.online import FeastOnlineFeatures

    return FeastOnlineFeatures(root / "feature_store")
