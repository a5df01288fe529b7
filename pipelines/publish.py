"""Stage `publish`: bundle, features, parity proof through a real server, gate, registered version and alias."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import polars as pl
from pydantic import Field

from pipelines import embed, ingest, rank, split
from pipelines.ingest import Ingested
from pipelines.ledger import code_version
from pipelines.parity import ParityProof, prove_parity
from pipelines.stage import Inputs, Surroundings
from recsys.artifacts.artifact import Artifact, Manifest, write_artifact
from recsys.artifacts.atomic import read_json, write_json
from recsys.config import Config
from recsys.embeddings.configs import EncoderConfig
from recsys.errors import ArtifactError
from recsys.evaluation.gate import decide
from recsys.serving.bundle import KIND, load_bundle, save_bundle
from recsys.serving.features import OnlineFeatures
from recsys.serving.recommender import Recommender

VERSION = 1
FUSED = "fused"


class PublishConfig(Config):
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share of the champion's NDCG@10 that a new version may lose and still be promoted."""
    parity_users: Annotated[int, Field(ge=1)] = 200
    parity_items: Annotated[int, Field(ge=10)] = 100
    parity_limit: Annotated[float, Field(gt=0)] = 1e-5
    """Largest difference allowed between an offline and a served score."""


class ReleaseConfig(Config):
    name: str
    encoders: tuple[EncoderConfig, ...]
    publish: PublishConfig


class Registry(Protocol):
    """The tracking server, as far as a release needs it."""

    def champion(self, name: str) -> Mapping[str, Any] | None: ...
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
    ) -> str: ...


@dataclass(frozen=True)
class Services:
    """What the composition root hands to this stage."""

    registry: Callable[[], Registry]
    publish_features: Callable[[pl.DataFrame, pl.DataFrame], None]
    online_features: Callable[[], OnlineFeatures]
    serving: Callable[[Recommender, OnlineFeatures], AbstractContextManager[str]]
    """Starts the scoring service on a free loopback port, gives its base URL, stops it."""


def run(config: ReleaseConfig, inputs: Inputs, folder: Path, surroundings: Surroundings, *, services: Services) -> Mapping[str, Any]:
    data, data_split = ingest.load(inputs["data"]), split.load(inputs["split"])
    board = read_json(inputs["evaluation"].file("board.json"))
    fused = next(row for row in board if row["name"] == FUSED)
    metrics = {metric: value for metric, value in fused.items() if "@" in metric and isinstance(value, float)}
    bundle = _write_bundle(config, inputs, folder, data, data_split.digest, metrics)
    with surroundings.reporter.task("publish", "steps") as advance:
        advance(0, 3, "features")
        spaces = {name: a.manifest.metadata["space_id"] for role, a in inputs.items() if role.startswith("table:") for name in [a.manifest.metadata["name"]]}
        services.publish_features(_user_state(data), _item_attributes(data, spaces))
        advance(1, 3, "parity through the service")
        proof = _prove(config.publish, bundle, data, services)
        advance(2, 3, "registry")
        registry = services.registry()
        champion = registry.champion(config.name)
        verdict = decide(
            fused["ndcg@10"],
            champion["ndcg@10"] if champion else None,
            same_split=champion is not None and champion["split_hash"] == data_split.digest,
            tolerance=config.publish.tolerance,
        )
        alias = "champion" if verdict.promoted else "challenger"
        report = [inputs["evaluation"].file(name) for name in ("report.html", "report.json", "report.md")]
        rank_facts = inputs["rank"].manifest.metadata
        version = registry.release(
            config.name,
            bundle,
            alias=alias,
            params={"rank": rank_facts["config"], "split_hash": data_split.digest, "spaces": spaces},
            metrics={**metrics, **{name: value for role, a in inputs.items() if role.startswith("table:") for name, value in embed.figures(a).items()}},
            histories={FUSED: read_json(inputs["rank"].file("history.json"))},
            files=report,
        )
        advance(3, 3, "")
    write_json(folder / "parity.json", proof.to_json())
    return {
        "name": config.name,
        "version": version,
        "alias": alias,
        "gate": verdict.reason,
        "parity_max_difference": proof.max_difference,
        "parity_same_top_10": proof.same_top_10,
    }


def _write_bundle(config: ReleaseConfig, inputs: Inputs, folder: Path, data: Ingested, split_digest: str, metrics: Mapping[str, float]) -> Artifact:
    ranker = rank.load(inputs["rank"])
    manifest = Manifest(
        kind=KIND,
        key=inputs["rank"].key,
        config_hash=config.digest(),
        inputs={role: artifact.key for role, artifact in inputs.items()},
        code_version=code_version(),
    )
    return write_artifact(
        folder / "bundle",
        manifest,
        lambda target: save_bundle(
            target,
            name=config.name,
            ranker=ranker,
            catalog=data.catalog,
            users=data.interactions.users,
            histories=data.interactions.sequences(),
            encoders={encoder.name: encoder.model_dump(mode="json") for encoder in config.encoders if encoder.name in ranker.spaces},
            split_digest=split_digest,
            metrics=metrics,
        ),
    )


def _user_state(data: Ingested) -> pl.DataFrame:
    events = data.interactions.to_frame()
    state = events.group_by("user_id", maintain_order=True).agg(
        recent_item_ids=pl.col("item_id"), n_interactions=pl.len().cast(pl.Int64), last=pl.col("time").max()
    )
    return state.with_columns(last_timestamp=_as_datetime(pl.col("last"))).drop("last")


def _item_attributes(data: Ingested, spaces: Mapping[str, str]) -> pl.DataFrame:
    counts = data.interactions.sequences().counts(len(data.catalog))
    return pl.DataFrame(
        {
            "item_id": list(data.catalog.items.ids),
            "title": data.catalog.titles(),
            "categories": pl.Series(data.catalog.categories(), dtype=pl.List(pl.String)),
            "n_interactions": counts,
            "embedding_space": [",".join(f"{name}={space}" for name, space in sorted(spaces.items()))] * len(data.catalog),
        }
    )


def _as_datetime(seconds: pl.Expr) -> pl.Expr:
    """UTC. A source without a clock counts positions: they become seconds of 1970, which keeps their order."""
    limit = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())
    return pl.from_epoch(seconds.clip(0, limit), time_unit="s").dt.replace_time_zone("UTC")


def _prove(config: PublishConfig, bundle: Artifact, data: Ingested, services: Services) -> ParityProof:
    recommender = Recommender(load_bundle(bundle.path))
    events = data.interactions.sequences()
    active = np.flatnonzero(events.lengths > 0)
    users = active[np.linspace(0, len(active) - 1, min(config.parity_users, len(active))).astype(np.int64)]
    features = services.online_features()
    with services.serving(recommender, features) as url:
        proof = prove_parity(url, load_bundle(bundle.path).ranker, data.interactions.users, data.catalog.items, events, users, config.parity_items)
    if proof.max_difference > config.parity_limit or not proof.same_top_10:
        raise ArtifactError(
            f"not published: offline and served scores differ by {proof.max_difference:.2e} (limit {config.parity_limit:g}), same top 10: {proof.same_top_10}"
        )
    return proof
