"""`recsys rollback`: the champion before this one, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from recsys.errors import ConfigError


def rollback(
    name: Annotated[str, typer.Argument(help="Name of the model.")] = "recsys-ml100k",
    reason: Annotated[str, typer.Option(help="Why; it is kept with the version that is taken back.")] = "",
    root: Annotated[Path, typer.Option(help="Folder of artifacts, registry and feature store.")] = Path(".recsys"),
) -> None:
    """Make the champion of before the champion again; services that follow the registry swap it in. Again: one further back."""
    from feature_store.publish import current_version, with_vectors
    from pipelines.features import features_root, vectors_of
    from pipelines.services import existing_tracker
    from recsys.serving.bundle import load_bundle

    tracker = existing_tracker(root.absolute())
    if tracker is None:
        raise ConfigError(f"{root}: no registry there; nothing to take back (--root, or RECSYS_TRACKING_URI)")
    taken, serving = tracker.rollback(name, reason)
    features = features_root(root.absolute())
    if current_version(features) is not None:
        with_vectors(features, vectors_of(load_bundle(tracker.resolve(f"models:/{name}/{serving}").path)))
    Console().print(f"{name}: version {taken} is taken back, version {serving} is the champion", highlight=False)
