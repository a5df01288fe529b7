"""Servers for the benchmark of serving, each in a process of its own: `python -m benchmarks._scorer KIND SETTINGS` (JSON)."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.scoring import ranker
from recsys.artifacts.artifact import Artifact, Manifest, write_artifact
from recsys.data.catalog import ItemCatalog
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.heads.config import FusionConfig
from recsys.heads.ranker import FusedRanker
from recsys.models.sasrec import SasRecConfig
from recsys.ranking.index import ItemIndex
from recsys.serving.assembly import assemble
from recsys.serving.bundle import Bundle, load_bundle, save_bundle, unit_rows
from recsys.serving.config import ServiceConfig
from recsys.serving.recommender import Recommender

NAME, CATEGORIES = "bench", ("Drama", "Comedy", "Action", "Horror", "Sci-Fi", "War")


def model_of(n_items: int, history: int, signals: dict[str, int], seed: int = 0) -> FusedRanker:
    """Of random weights: 64 dimensions, two layers."""
    import torch

    config = FusionConfig(encoder=SasRecConfig(dim=64, blocks=2, max_length=history))
    made = ranker(config, n_items, signals)
    if seed == 0:
        return made
    # Another version: the same parts, other item vectors.
    torch.manual_seed(seed)
    return FusedRanker(config, made._network, torch.randn_like(made._components), made.scorable_items().copy(), made._transforms, made.spaces)


def catalog_of(n_items: int) -> ItemCatalog:
    numbers = np.arange(n_items)
    names = [[CATEGORIES[n % 6]] for n in numbers.tolist()]
    return ItemCatalog(pl.DataFrame({"item_id": numbers.astype(str), "title": [f"Title {n}" for n in numbers.tolist()], "categories": names}))


def histories_of(n_users: int, n_items: int, length: int) -> Sequences:
    generator = np.random.default_rng(0)
    return Sequences.of_rows([generator.integers(0, n_items, length) for _ in range(n_users)])


def write_bundle(folder: Path, n_items: int, n_users: int, history: int, signals: dict[str, int], seed: int = 0) -> Artifact:
    users, rows, catalog = Vocabulary(f"u{n}" for n in range(n_users)), histories_of(n_users, n_items, history), catalog_of(n_items)

    def write(target: Path) -> dict[str, Any]:
        made = model_of(n_items, history, signals, seed)
        return save_bundle(target, name=NAME, ranker=made, catalog=catalog, users=users, histories=rows, encoders={}, split_digest="random", metrics={})

    return write_artifact(folder, Manifest(kind="bundle", key=f"{seed:064d}", config_hash="random"), write)


def large_bundle(n_items: int, n_users: int, history: int) -> Bundle:
    """Not on disk: its index would take minutes to build in the form that is kept there."""
    made, catalog = model_of(n_items, history, {"graph": 64}), catalog_of(n_items)
    index = ItemIndex.build(unit_rows(made.items()), "random", exact_below=n_items + 1)
    users, rows = Vocabulary(f"u{n}" for n in range(n_users)), histories_of(n_users, n_items, history)
    return Bundle(NAME, "large", made, catalog, users, rows, index, "random", {}, {})


def ours(port: int, bundle: str = "", large: dict[str, int] | None = None, registry: str = "", poll_seconds: float = 1.0, workers: int | None = None) -> None:
    """The service. registry: URI of an MLflow registry whose champion is followed."""
    from recsys.serving.model_source import RegistrySource, open_bundle
    from recsys.serving.server import serve

    source = RegistrySource(NAME, "champion", registry) if registry else None
    loaded = large_bundle(**large) if large else open_bundle(source, None) if source is not None else load_bundle(Path(bundle))
    service = assemble(Recommender(loaded), config=ServiceConfig(workers=workers, queue=1000, deadline_ms=10_000), source=source, poll_seconds=poll_seconds)
    serve(service, port=port, log_level="warning")


def ray_serve(port: int, bundle: str) -> None:
    import os

    os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "300"
    import ray
    from ray import serve

    from infra.ray_serve import application

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(application(bundle), name="scorer", route_prefix="/")
    while True:
        time.sleep(60)


def mlflow_serve(port: int, bundle: str, folder: str) -> None:
    import os

    from infra.mlflow_model import save

    save(Path(bundle), Path(folder))
    arguments = ["-m", "mlflow", "models", "serve", "-m", folder, "-p", str(port), "-h", "127.0.0.1", "--env-manager", "local", "--workers", "1"]
    # It starts uvicorn by its name.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    os.execve(sys.executable, [sys.executable, *arguments], environment)


if __name__ == "__main__":
    {"ours": ours, "ray_serve": ray_serve, "mlflow": mlflow_serve}[sys.argv[1]](**json.loads(sys.argv[2]))
