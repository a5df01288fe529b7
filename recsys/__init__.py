"""Recommender-systems platform. `recsys.load(...)` gives a model that recommends; everything else is in the subpackages.

Importing this package loads neither torch nor MLflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recsys.serving.recommender import Recommender

__all__ = ["load"]


def load(uri: str | Path, *, tracking_uri: str | None = None) -> Recommender:
    """A published model, ready to recommend.

    uri: "models:/name@alias", "models:/name/version", or the folder of a bundle.
    tracking_uri: the registry; by default the environment's RECSYS_TRACKING_URI, else `.recsys/mlflow.db` below the
    current folder.

    Raises:
        ConfigError: no such model, alias, version or folder.
        ArtifactError: the bundle's bytes are not those of its manifest.
    """
    from recsys.errors import ConfigError
    from recsys.serving.bundle import load_bundle
    from recsys.serving.recommender import Recommender

    if str(uri).startswith("models:"):
        from recsys.tracking import resolve

        found = resolve(str(uri), tracking_uri)
        return Recommender(load_bundle(found.path, name=found.name, version=found.version, key=found.bundle_key))
    path = Path(uri)
    if not path.is_dir():
        raise ConfigError(f"{str(uri)!r} is neither a folder nor a registered model (models:/name@alias or models:/name/version)")
    return Recommender(load_bundle(path))
