"""The configuration of one run: one small object a stage, nothing that a stage does not read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from feature_store.online_store import OnlineStore, SqliteStore
from pipelines.evaluate import EvaluateConfig
from pipelines.explain import ExplainConfig
from pipelines.graph import GraphSignal
from pipelines.ingest import IngestConfig
from pipelines.publish import PublishConfig
from recsys.config import Config
from recsys.embeddings.configs import EncoderConfig
from recsys.embeddings.image_source import ImageSourceConfig
from recsys.embeddings.limits import LimitsConfig
from recsys.heads.fusion import FusionConfig


class RuntimeConfig(Config):
    """Place and speed; never the result."""

    root: Path = Path(".recsys")
    """Artifacts, caches, registry and feature store. Relative to the folder where the command runs."""
    executor: Literal["ray", "local"] = "ray"
    """Who embeds: a Ray actor pool, or this process."""
    ray_address: str | None = None
    """A running cluster's address; null starts one on this machine for the run."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Encoder actors; each loads the model once. On one small machine more than one only costs memory."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of torch; null: all cores, shared by the encoder actors of a node."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    """CPUs of the cluster that an encoder actor reserves."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    """GPUs that an encoder actor reserves; 0.25 puts four actors on one."""
    online_store: OnlineStore = SqliteStore()
    """Where the service reads the state of users: `kind: sqlite`, or `kind: redis` with a connection string."""
    no_progress_seconds: Annotated[float, Field(gt=0)] = 300.0
    """An embedding job that finishes no batch for so long is stopped, with a reason. Loading the model counts too."""


class ColdConfig(Config):
    """The cold board: the same models once more on a split where some items have no interactions at all."""

    enabled: bool = True
    held_out_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    seed: int = 0


class ModelConfig(Config):
    """What `recsys run` and a nightly run have in common."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    """Name of the registered model."""
    data: IngestConfig
    embed: tuple[EncoderConfig, ...] = ()
    """One embedding table each; empty: an ID-only model."""
    limits: LimitsConfig = LimitsConfig()
    """What no encoder is given."""
    images: ImageSourceConfig = ImageSourceConfig()
    """Where the pictures of the items come from, for encoders that look at them."""
    graph: tuple[GraphSignal, ...] = ()
    """One more signal of the fused model each, of a graph of training that reads all tables above; empty: none is built."""
    rank: FusionConfig = FusionConfig()
    """The fused model."""
    explain: ExplainConfig | None = None
    """A language model says of each item who would enjoy it, and why: the stored reason beside a recommendation. Null: there is none."""
    publish: PublishConfig = PublishConfig()
    seed: int = 0
    """Of initial weights, batches and dropout; the split has its own."""
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [encoder.name for encoder in self.embed] + [signal.name for signal in self.graph]
        if len(set(names)) != len(names):
            raise ValueError(f"embed, graph: two signals have the same name: {', '.join(names)}")
        return self


class RunConfig(ModelConfig):
    """Everything that `recsys run` needs."""

    cold: ColdConfig = ColdConfig()
    backbone: FusionConfig = FusionConfig()
    """The ID-only SASRec."""
    evaluate: EvaluateConfig = EvaluateConfig()
