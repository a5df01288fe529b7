"""Where versions come from: the seam, the registry behind it, and what a service keeps for the day when the registry is down."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from recsys.artifacts.atomic import read_json, write_json
from recsys.errors import ArtifactError, RecsysError, RetryableError
from recsys.serving.bundle import Bundle, load_bundle

if TYPE_CHECKING:
    from recsys.tracking import Tracker

LAST = "last.json"
_log = logging.getLogger(__name__)


class ModelSource(Protocol):
    def version(self) -> str | None:
        """The version that should answer now; None when none is named. Raises RetryableError: nobody can tell."""
        ...

    def fetch(self, version: str) -> Bundle:
        """Verified. Raises ArtifactError: it is not what was registered. RetryableError: it cannot be had now."""
        ...


class RegistrySource:
    """The version that carries `alias` in the registry at `uri`."""

    def __init__(self, name: str, alias: str, uri: str) -> None:
        # A registry that is down must not hold a poll for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self._name, self._alias, self._uri = name, alias, uri
        self._tracker: Tracker | None = None

    def version(self) -> str | None:
        from recsys.tracking import Tracker

        database = Path(self._uri.removeprefix("sqlite:///"))
        if self._uri.startswith("sqlite:///") and not database.is_file():
            # To ask would make an empty one.
            raise RetryableError(f"the registry {self._uri} is not there")
        try:
            if self._tracker is None:
                self._tracker = Tracker(self._uri)
            found = self._tracker.version_of(self._name, self._alias)
        except Exception as error:
            self._tracker = None
            raise RetryableError(f"the registry {self._uri} does not answer: {_first_line(error)}") from error
        return None if found is None else found.version

    def fetch(self, version: str) -> Bundle:
        from recsys.tracking import resolve

        try:
            found = resolve(f"models:/{self._name}/{version}", self._uri)
            return load_bundle(found.path, name=found.name, version=found.version, key=found.bundle_key)
        except RecsysError:
            raise
        except Exception as error:
            raise RetryableError(f"version {version} of {self._name} cannot be fetched: {_first_line(error)}") from error


class BundleStore:
    """The last bundle that served here, in a folder of its own: with it a service starts although the registry is down."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, bundle: Bundle) -> None:
        """Copy it, then forget the one before. A full disk is logged: the service goes on."""
        if bundle.path is None:
            return
        target = self._folder / f"{bundle.key[:32] or 'bundle'}-{uuid.uuid4().hex[:8]}"
        try:
            shutil.copytree(bundle.path, target)
            write_json(self._folder / LAST, {"folder": target.name, "name": bundle.name, "version": bundle.version, "key": bundle.key})
        except OSError as error:
            shutil.rmtree(target, ignore_errors=True)
            _log.error("version %s was not kept for a start without the registry: %s", bundle.version, error)
            return
        for other in self._folder.iterdir():
            if other.is_dir() and other != target:
                shutil.rmtree(other, ignore_errors=True)

    def last(self) -> Bundle:
        """Raises ArtifactError: none was kept, or it was damaged since."""
        try:
            facts = read_json(self._folder / LAST)
        except FileNotFoundError:
            raise ArtifactError(f"{self._folder}: no model was kept here") from None
        return load_bundle(self._folder / facts["folder"], name=facts["name"], version=facts["version"], key=facts["key"])


def open_bundle(source: ModelSource, store: BundleStore | None) -> Bundle:
    """What a service starts with: the version that the source names, else the one that served here last.

    Raises:
        RecsysError: neither can be had; what the source said.
    """
    try:
        version = source.version()
        if version is None:
            raise RetryableError(
                "no version is named for this service; publish one first, or serve one that the gate did not pass by its alias: --model models:/NAME@challenger"
            )
        bundle = source.fetch(version)
    except (RetryableError, ArtifactError) as error:
        if store is None:
            raise
        try:
            bundle = store.last()
        except ArtifactError:
            raise error from None
        _log.error("starting with version %s, which served here last: %s", bundle.version, error)
        return bundle
    if store is not None:
        store.keep(bundle)
    return bundle


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
