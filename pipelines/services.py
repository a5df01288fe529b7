"""What the outside world offers to a run: the registry, the feature store, the scoring service."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feature_store.online_store import RedisStore, SqliteStore
from feature_store.tables import FeatureTables
from pipelines.publish import RELEASE_TAG, Release, Services
from recsys.artifacts.atomic import crash_point
from recsys.errors import RetryableError
from recsys.evaluation.gate import Verdict
from recsys.serving.features import OnlineFeatures
from recsys.serving.recommender import Recommender
from recsys.tracking import CHALLENGER, CHAMPION, RegisteredVersion, Tracker, default_tracking_uri

START_SECONDS = 30


def make_services(root: Path, online_store: SqliteStore | RedisStore | None = None) -> Services:
    """Everything below `root`, except where RECSYS_TRACKING_URI names another registry."""
    return Services(
        registry=lambda: MlflowRegistry(Tracker(default_tracking_uri(root))),
        stage_features=lambda tables: _stage_features(root, tables, online_store),
        activate_features=lambda version: _activate_features(root, version),
        online_features=lambda version: _feast(root, version),
        serving=serving,
    )


def online_features(root: Path) -> OnlineFeatures | None:
    """The live features below `root`; None before the first publish: then the service reads the published snapshot."""
    return _feast(root) if (root / "feature_store" / "current").exists() else None


def existing_tracker(root: Path) -> Tracker | None:
    """None where there is no registry yet: looking does not make one."""
    uri = default_tracking_uri(root)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return None
    return Tracker(uri)


class MlflowRegistry:
    """Logs a release as one MLflow run, registers its bundle, and moves the aliases."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def champion(self, name: str) -> RegisteredVersion | None:
        return self._tracker.champion(name)

    def file_of(self, version: RegisteredVersion, file: str) -> Path | None:
        return self._tracker.file_of(version, file)

    def registered(self, name: str, release_id: str) -> RegisteredVersion | None:
        return self._tracker.find(name, {RELEASE_TAG: release_id})

    def bundle_of(self, version: RegisteredVersion) -> Path:
        return self._tracker.resolve(f"models:/{version.name}/{version.version}").path

    def register(self, release: Release) -> str:
        registered = self.registered(release.name, release.tags[RELEASE_TAG])
        if registered is not None:
            return registered.version
        crash_point("register a version")
        with self._tracker.run(release.name, release.tags) as run:
            run.log_params(release.params)
            run.log_metrics(release.metrics)
            for model, history in release.histories.items():
                run.log_history([{f"train/{model}/{key}": value for key, value in row.items() if key != "epoch"} for row in history])
            for folder, files in release.files.items():
                for file in files:
                    run.log_files(file, folder)
            crash_point("version logged")
            version = self._tracker.register(release.name, release.bundle.path, run_id=run.run_id, tags=release.tags)
            crash_point("version registered")
        return version

    def assign(self, name: str, version: str, verdict: Verdict) -> str:
        crash_point("move the alias")
        if verdict.promoted:
            self._tracker.promote(name, version)
        else:
            self._tracker.set_alias(name, CHALLENGER, version)
        crash_point("alias moved")
        return CHAMPION if verdict.promoted else CHALLENGER


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


def _stage_features(root: Path, tables: FeatureTables, online_store: SqliteStore | RedisStore | None) -> str:
    from feature_store.publish import prepare

    return prepare(root / "feature_store", tables, online_store).version


def _activate_features(root: Path, version: str) -> None:
    from feature_store.publish import activate

    activate(root / "feature_store", version)


def _feast(root: Path, version: str | None = None) -> OnlineFeatures:
    from feature_store.online import FeastOnlineFeatures

    return FeastOnlineFeatures(root / "feature_store", version)
