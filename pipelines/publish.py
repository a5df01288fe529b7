"""Stage `publish`: bundle, features, parity proof through a real server, gate, registered version and alias.

Nothing that a reader sees changes before the gate has spoken; then come the version, the features and the alias, in this order. Each of
these can be done again: a run that was killed between two of them ends, when it is repeated, where an undisturbed one does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import polars as pl
from pydantic import Field

from feature_store.tables import FeatureTables
from pipelines import contest, embed, explain, ingest, inspection, rank, split
from pipelines.evidence import champion_figures, gathered, saved_figures
from pipelines.features import FeaturesConfig, feature_tables
from pipelines.ingest import Ingested
from pipelines.latency import measure_latency
from pipelines.ledger import code_version
from pipelines.parity import ParityProof, prove_parity
from pipelines.stage import Inputs, Surroundings
from recsys.artifacts.artifact import Artifact, Manifest, write_artifact
from recsys.artifacts.atomic import read_json, write_json
from recsys.config import Config, digest_of
from recsys.embeddings.configs import EncoderConfig
from recsys.errors import RetryableError
from recsys.evaluation.gate import GateConfig, Verdict, decide
from recsys.graph.explanations import OK
from recsys.serving.bundle import KIND, Bundle, load_bundle, save_bundle
from recsys.serving.features import OnlineFeatures
from recsys.serving.recommender import Recommender
from recsys.tracking import RegisteredVersion

VERSION = 2
FUSED = "fused"
VERDICT = "gate/verdict.json"
"""Kept with each version."""
REASONS = "reasons"
"""The input that holds what a language model says of the items."""
RELEASE_TAG, TRAINED_UNTIL_TAG, NIGHT_TAG = "recsys.release", "recsys.trained_until", "recsys.night"
"""Of a registered version: hash of all that made it; the first moment, Unix seconds, whose events it has not seen; the day of a nightly run."""


class PublishConfig(Config):
    gate: GateConfig = GateConfig()
    """What a version must show to become the champion."""
    features: FeaturesConfig = FeaturesConfig()
    parity_users: Annotated[int, Field(ge=1)] = 200
    parity_items: Annotated[int, Field(ge=10)] = 100
    latency_requests: Annotated[int, Field(ge=10)] = 200
    """Requests that are timed against the gate's budget."""
    latency_candidates: Annotated[int, Field(ge=1)] = 500
    """Candidates of each of them."""


class ReleaseConfig(Config):
    name: str
    encoders: tuple[EncoderConfig, ...]
    publish: PublishConfig


@dataclass(frozen=True)
class Release:
    """What is handed to the registry. tags: of the version; `RELEASE_TAG` among them tells whether it was registered before."""

    name: str
    bundle: Artifact
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    histories: Mapping[str, list[dict[str, float]]]
    files: Mapping[str, list[Path]]
    """Folder in the run -> files."""
    tags: Mapping[str, str]


class Registry(Protocol):
    """The tracking server, as far as a release needs it."""

    def champion(self, name: str) -> RegisteredVersion | None: ...
    def file_of(self, version: RegisteredVersion, file: str) -> Path | None:
        """A file of the run of a version; None when there is none."""
        ...

    def registered(self, name: str, release_id: str) -> RegisteredVersion | None:
        """The version that this release was registered as before; None when it was not."""
        ...

    def bundle_of(self, version: RegisteredVersion) -> Path:
        """The folder of its bundle, on this machine."""
        ...

    def register(self, release: Release) -> str:
        """The version; the one that is there already when this release was registered before."""
        ...

    def assign(self, name: str, version: str, verdict: Verdict) -> str:
        """The alias that the verdict gives, "champion" or "challenger"; it is moved."""
        ...


Serving = Callable[[Recommender, OnlineFeatures], AbstractContextManager[str]]


@dataclass(frozen=True)
class Services:
    """What the composition root hands to this stage."""

    registry: Callable[[], Registry]
    stage_features: Callable[[FeatureTables], str]
    """-> name of a version that nobody reads yet."""
    activate_features: Callable[[str], None]
    """Makes it the live one. Again: nothing happens."""
    online_features: Callable[[str], OnlineFeatures]
    """Reads one version, live or not."""
    serving: Serving
    """Starts the scoring service on a free loopback port, gives its base URL, stops it."""


def run(config: ReleaseConfig, inputs: Inputs, folder: Path, surroundings: Surroundings, *, services: Services) -> Mapping[str, Any]:
    data, data_split = ingest.load(inputs["data"]), split.load(inputs["split"])
    board = read_json(inputs["evaluation"].file("board.json"))
    own = next(row for row in board if row["name"] in (FUSED, contest.CHALLENGER))
    metrics = {metric: value for metric, value in own.items() if "@" in metric and isinstance(value, float)}
    bundle = _write_bundle(config, inputs, folder, data, data_split.digest, metrics)
    with surroundings.reporter.task("publish", "steps") as advance:
        advance(0, 4, "features")
        spaces = {name: a.manifest.metadata["space_id"] for role, a in inputs.items() if role.startswith("table:") for name in [a.manifest.metadata["name"]]}
        loaded = load_bundle(bundle.path)
        features = services.stage_features(feature_tables(config.publish.features, data, spaces, loaded))
        advance(1, 4, "parity through the service")
        proof, latency = _measured(config.publish, loaded, data, services.serving, services.online_features(features))
        advance(2, 4, "gate")
        registry = services.registry()
        champion = registry.champion(config.name)
        broken = [violation for role, artifact in inputs.items() if role.startswith("inspection") for violation in inspection.violations(artifact)]
        evidence = replace(
            gathered(inputs["evaluation"], data_split.digest, champion, champion_figures(registry.file_of, champion)),
            latency_ms=latency,
            parity=proof.max_difference,
            same_top=proof.same_top_10,
            contract=tuple(broken),
        )
        release_id = digest_of([config.digest(), {role: artifact.key for role, artifact in inputs.items()}])
        _require_same_champion(inputs["evaluation"], champion, release_id)
        verdict = _verdict_of(registry, registry.registered(config.name, release_id)) or decide(config.publish.gate, evidence)
        write_json(folder / "verdict.json", verdict.to_json())
        saved_figures(inputs["evaluation"], folder / "gate_users.safetensors")
        advance(3, 4, "registry")
        rank_facts = inputs["rank"].manifest.metadata
        reports = [inputs["evaluation"].path / name for name in ("report.html", "report.json", "report.md") if name in inputs["evaluation"].manifest.files]
        version = registry.register(
            Release(
                config.name,
                bundle,
                params={"rank": rank_facts["config"], "split_hash": data_split.digest, "spaces": spaces},
                metrics={**metrics, **{name: value for role, a in inputs.items() if role.startswith("table:") for name, value in embed.figures(a).items()}},
                histories={FUSED: read_json(inputs["rank"].file("history.json"))},
                files={"report": reports, "gate": [folder / "verdict.json", folder / "gate_users.safetensors"]},
                tags={
                    "split_hash": data_split.digest,
                    "code_version": bundle.manifest.code_version,
                    RELEASE_TAG: release_id,
                    TRAINED_UNTIL_TAG: str(_trained_until(inputs, data)),
                    **({NIGHT_TAG: inputs["inspection"].manifest.metadata["day"]} if "inspection" in inputs else {}),
                    "gate": verdict.decision,
                    "gate.reason": verdict.reason[:4000],
                },
            )
        )
        if champion is not None and champion.version != version and not verdict.promoted:
            # Users are as of tonight whatever the verdict; item vectors are those of the model that goes on serving.
            features = services.stage_features(feature_tables(config.publish.features, data, spaces, load_bundle(registry.bundle_of(champion))))
        services.activate_features(features)
        alias = registry.assign(config.name, version, verdict)
        advance(4, 4, "")
    write_json(folder / "parity.json", proof.to_json())
    return {
        "name": config.name,
        "version": version,
        "alias": alias,
        "decision": verdict.decision,
        "gate": verdict.reason,
        "parity_max_difference": proof.max_difference,
        "parity_same_top_10": proof.same_top_10,
        "latency_p99_ms": round(latency, 3),
    }


def _verdict_of(registry: Registry, version: RegisteredVersion | None) -> Verdict | None:
    """A decision that was registered is not made again: the clock may have another opinion of the latency by now."""
    file = None if version is None else registry.file_of(version, VERDICT)
    return None if file is None else Verdict.of_json(read_json(file))


def _trained_until(inputs: Inputs, data: Ingested) -> int:
    """Unix seconds: no event at or after it has trained, validated or chosen anything of this version."""
    window = inputs["split"].manifest.metadata.get("window_start")
    return int(data.interactions.times.max()) + 1 if window is None else int(window)


def _require_same_champion(evaluation: Artifact, champion: RegisteredVersion | None, release_id: str) -> None:
    """A contest was against the champion of then. Raises RetryableError: meanwhile another version took its place."""
    if not contest.is_contest(evaluation):
        return
    then, now = evaluation.manifest.metadata["champion"], champion.version if champion else "none"
    ours = champion is not None and champion.tags.get(RELEASE_TAG) == release_id
    if then != now and not ours:
        raise RetryableError(f"the champion was version {then} when this night compared with it, now it is version {now}; run again to compare with that one")


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
            explanations=_reasons(inputs.get(REASONS)),
        ),
    )


def _reasons(told: Artifact | None) -> dict[str, str]:
    """item_id -> text, of the items that have one."""
    if told is None:
        return {}
    found = explain.load(told).filter((pl.col("status") == OK) & (pl.col("explanation") != ""))
    return dict(found.select("item_id", "explanation").iter_rows())


def _measured(config: PublishConfig, bundle: Bundle, data: Ingested, serving: Serving, features: OnlineFeatures) -> tuple[ParityProof, float]:
    """Parity through a real server, and milliseconds of a request in process."""
    recommender = Recommender(bundle)
    events = data.interactions.sequences()
    active = np.flatnonzero(events.lengths > 0)
    users = active[np.linspace(0, len(active) - 1, min(config.parity_users, len(active))).astype(np.int64)]
    with serving(recommender, features) as url:
        proof = prove_parity(url, bundle.ranker, data.interactions.users, data.catalog.items, events, users, config.parity_items)
    return proof, measure_latency(recommender, data.interactions.users.ids_of(users), config.latency_requests, config.latency_candidates)
