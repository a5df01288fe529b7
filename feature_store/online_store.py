"""Which online store a version is served from."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import prometheus_client  # noqa: F401 (where its values live is decided when it is imported: before Feast can, see `quiet`)
import yaml
from pydantic import Field

from recsys.config import Config

SHARED_METRICS = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")
TEMPLATE = Path(__file__).with_name("feature_store.yaml")


class SqliteStore(Config):
    kind: Literal["sqlite"] = "sqlite"
    """A file in the version's folder: nothing to run, one machine."""


class RedisStore(Config):
    kind: Literal["redis"] = "redis"
    """A Redis server, shared by all replicas. Needs the extra `redis`."""
    connection_string: str = "localhost:6379"
    """host:port, then options: `redis:6379,db=0,ssl=true,password=...`."""


OnlineStore = Annotated[SqliteStore | RedisStore, Field(discriminator="kind")]


def repository(store: SqliteStore | RedisStore, version: str) -> str:
    """feature_store.yaml of one version. In Redis a version is a project of its own: its keys end with the name."""
    document = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    if isinstance(store, RedisStore):
        document["project"] = "recsys_" + re.sub(r"\W", "_", version)
        document["online_store"] = {"type": "redis", "connection_string": store.connection_string}
    return str(yaml.safe_dump(document, sort_keys=False))


def open_store(folder: Path) -> Any:
    """`feast.FeatureStore` of a version's folder."""
    with quiet():
        import feast.metrics  # noqa: F401 (the first read would, outside of `quiet`)
        from feast import FeatureStore

        return FeatureStore(repo_path=str(folder))


def forget(folder: Path) -> None:
    """Remove what a version left in a shared store. Of SQLite nothing: its file goes with its folder."""
    try:
        options = yaml.safe_load((folder / "feature_store.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    if options["online_store"]["type"] != "redis":
        return
    with contextlib.suppress(Exception), quiet():  # keys left behind cost memory, a publish that fails for them costs more
        store = open_store(folder)
        client = store._get_provider().online_store._get_client(store.config.online_store)
        for key in client.scan_iter(b"*" + store.project.encode()):
            client.delete(key)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Feast prints what it does, with a progress bar of its own, and warns of pandas and dask internals. Its metrics are made for a fleet of
    its own servers: by two variables of the environment they would put those of the whole process, and of its children, into shared files."""
    chatter = io.StringIO()
    stated = {name: os.environ[name] for name in SHARED_METRICS if name in os.environ}
    level = logging.getLogger("feast").level
    with warnings.catch_warnings(), contextlib.redirect_stdout(chatter), contextlib.redirect_stderr(chatter):
        warnings.simplefilter("ignore")
        logging.getLogger("feast").setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger("feast").setLevel(level)
            for name in SHARED_METRICS:
                os.environ.pop(name, None)
            os.environ.update(stated)
