"""Is what the store answers what was published, and of the model that serves?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from feature_store.journal import Journal
from feature_store.online import FeastOnlineFeatures
from feature_store.online_store import open_store, quiet
from feature_store.publish import current_version
from feature_store.tables import EVENT_TIMESTAMP
from recsys.errors import SpaceMismatchError

SAMPLE = 20


@dataclass(frozen=True)
class Checked:
    """problem: "" where all is well."""

    name: str
    found: str
    problem: str = ""


def verify(root: Path, snapshot_space: str | None) -> list[Checked]:
    """Compare definitions, user states and item vectors of the live version. snapshot_space: of the item vectors that the published
    model scores with; None: there is no model to compare with. Nothing is changed."""
    root = root.absolute()
    version = current_version(root)
    if version is None:
        return [Checked("published", "nothing", f"{root} holds no features; run the pipeline first")]
    path = root / "versions" / version
    with quiet():
        store = open_store(path)
    return [Checked("published", version), _definitions(store), _users(root, path), *_vectors(store, path, snapshot_space)]


def require_same_space(root: Path, snapshot_space: str) -> None:
    """Raises SpaceMismatchError: the live item vectors are of another space than the snapshot that scores."""
    found = live_space(root)
    if found is not None and found != snapshot_space:
        raise SpaceMismatchError(f"the feature store holds item vectors of space {found}, the snapshot is {snapshot_space}; publish again")


def live_space(root: Path) -> str | None:
    """embedding_space_id of the live version's item vectors; None where there are none."""
    version = current_version(root)
    if version is None:
        return None
    spaces = pq.read_table(root / "versions" / version / "data" / "item_vectors.parquet", columns=["embedding_space_id"])["embedding_space_id"].unique()
    return spaces[0].as_py() if len(spaces) == 1 else None


def _definitions(store: Any) -> Checked:
    from feature_store import definitions

    def fields(views: Iterable[Any]) -> dict[str, list[tuple[str, str]]]:
        return {view.name: sorted((field.name, str(field.dtype)) for field in view.features) for view in views}

    wanted = fields(each for each in definitions.ALL if hasattr(each, "ttl"))
    with quiet():
        found = fields(store.list_feature_views())
        services = sorted(service.name for service in store.list_feature_services())
    if differ := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        return Checked("definitions", ", ".join(found), f"the registry differs from the code in {', '.join(differ)}; run `recsys features apply`")
    return Checked("definitions", f"{len(found)} views, services {', '.join(services)}")


def _users(root: Path, path: Path) -> Checked:
    """Online state = batch + the events that were pushed since."""
    batch = pl.read_parquet(path / "data" / "user_state.parquet").sort(EVENT_TIMESTAMP).unique("user_id", keep="last", maintain_order=True)
    chosen = batch.gather_every(max(1, len(batch) // SAMPLE)).head(SAMPLE)
    pushed = Journal(root).events()
    features = FeastOnlineFeatures(root)
    for row in chosen.iter_rows(named=True):
        since = [e.item_id for e in pushed if e.user_id == row["user_id"] and e.time > row["last_timestamp"].timestamp()]
        before, online = list(row["recent_item_ids"]), features.history(row["user_id"])
        # Events of one user may have come in another order than that of their times.
        if online is None or online[: len(before)] != before or not set(since) <= set(online):
            known = "no state" if online is None else f"{len(online)} items"
            problem = f"user {row['user_id']!r} has {known} online, {len(before)} were published and {len(since)} pushed since; materialise again"
            return Checked("user state", f"{len(chosen)} users", problem)
    return Checked("user state", f"{len(chosen)} of {len(batch)} users read, {len(pushed)} live events since")


def _vectors(store: Any, path: Path, snapshot_space: str | None) -> list[Checked]:
    table = pq.read_table(path / "data" / "item_vectors.parquet", columns=["item_id", "embedding_space_id"])
    if not len(table):
        return [Checked("item vectors", "none are published")]
    item = table["item_id"][0].as_py()
    with quiet():
        answer = store.get_online_features(features=["item_vectors:embedding_space_id"], entity_rows=[{"item_id": item}]).to_dict()
    offline, online = table["embedding_space_id"][0].as_py(), answer["embedding_space_id"][0]
    found = [Checked("item vectors", f"{len(table)} of space {offline}", "" if online == offline else f"online they are of space {online}; materialise again")]
    if snapshot_space is None:
        return [*found, Checked("snapshot", "no model is published")]
    problem = "" if offline == snapshot_space else f"the snapshot scores in space {snapshot_space}, the store holds {offline}; publish or roll back again"
    return [*found, Checked("snapshot", f"space {snapshot_space}", problem)]
