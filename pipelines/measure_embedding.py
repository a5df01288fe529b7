"""Stage `measure`: one way to embed the items -> how well its nearest neighbours answer (`recsys.evaluation.item_embeddings`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from safetensors.numpy import load_file, save_file

from pipelines import ingest, split
from pipelines.fine_tune import TABLE
from pipelines.item_tables import Made, made_table, post_processed
from pipelines.stage import Inputs, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.config import Config
from recsys.data.split import Split
from recsys.embeddings.adapter import KIND as ADAPTER
from recsys.embeddings.post import PostConfig
from recsys.embeddings.table import EmbeddingTable
from recsys.evaluation.item_embeddings import measure
from recsys.evaluation.metrics import MetricArray

VERSION = 1
VALUES = "values.safetensors"


class MeasureConfig(Config):
    made: Made | None = None
    """Made by this stage; null: the table of the input "table" (of an encoder, or of an adapter's training)."""
    post: PostConfig | None = None
    """Fitted on the items of the split's training part."""
    folder: Annotated[str, Field(exclude_if=lambda folder: not folder)] = ""
    """Of the input's artifact, where the table lies; "": where its kind has it, and then it is in no digest."""


def run(config: MeasureConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    data_split = split.load(inputs["split"])
    table = post_processed(config.post, _table(config, inputs, data_split), data_split)
    quality = measure(table, data_split)
    values = quality.values()
    save_file(values, folder / VALUES)
    return {
        "space": table.space.model_dump(mode="json"),
        "space_id": table.space_id,
        "split_hash": data_split.digest,
        "items_without_vector": int((~table.values.any(axis=1)).sum()),
        "means": {name: float(v.mean()) for name, v in values.items()},
    }


def load(artifact: Artifact) -> dict[str, MetricArray]:
    """See `ItemEmbeddingQuality.values`."""
    return dict(load_file(artifact.file(VALUES)))


def input_table(config: MeasureConfig, artifact: Artifact) -> EmbeddingTable:
    """As the artifact holds it, not post-processed."""
    return EmbeddingTable.load(artifact.path / (config.folder or (TABLE if artifact.manifest.kind == ADAPTER else "")))


def _table(config: MeasureConfig, inputs: Inputs, data_split: Split) -> EmbeddingTable:
    if config.made is not None:
        return made_table(config.made, data_split, lambda: ingest.load(inputs["data"]).catalog)
    return input_table(config, inputs["table"])
