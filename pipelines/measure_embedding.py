"""Stage `measure`: one way to embed the items -> how well its nearest neighbours answer (`recsys.evaluation.item_embeddings`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from pipelines import ingest, split
from pipelines.fine_tune import TABLE
from pipelines.stage import Inputs, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.config import Config
from recsys.data.split import Split
from recsys.embeddings.adapter import KIND as ADAPTER
from recsys.embeddings.lexical import random_table, tfidf_table
from recsys.embeddings.post import PostConfig, fit_post
from recsys.embeddings.table import EmbeddingTable
from recsys.evaluation.item_embeddings import measure
from recsys.evaluation.metrics import MetricArray

VERSION = 1
VALUES = "values.safetensors"


class RandomVectors(Config):
    kind: Literal["random"] = "random"
    dim: Annotated[int, Field(ge=1)] = 384
    seed: int = 0


class TfIdfVectors(Config):
    kind: Literal["tfidf"] = "tfidf"
    template: str
    """As an encoder's."""
    dim: Annotated[int, Field(ge=1)] = 256
    seed: int = 0
    """Of the randomised decomposition."""


class MeasureConfig(Config):
    made: Annotated[RandomVectors | TfIdfVectors, Field(discriminator="kind")] | None = None
    """Made by this stage; null: the table of the input "table" (of an encoder, or of an adapter's training)."""
    post: PostConfig | None = None
    """Fitted on the items of the split's training part."""


def run(config: MeasureConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    data_split = split.load(inputs["split"])
    table = _post_processed(config, _table(config, inputs, data_split), data_split)
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


def _table(config: MeasureConfig, inputs: Inputs, data_split: Split) -> EmbeddingTable:
    if isinstance(config.made, RandomVectors):
        return random_table(data_split.items, config.made.dim, config.made.seed)
    if isinstance(config.made, TfIdfVectors):
        made, catalog = config.made, ingest.load(inputs["data"]).catalog
        options = {"template": made.template, "dim": made.dim, "seed": made.seed}
        return tfidf_table(catalog.texts(made.template), catalog.items, data_split.item_counts() > 0, data_split.digest, **options)  # type: ignore[arg-type]
    artifact = inputs["table"]
    return EmbeddingTable.load(artifact.path / TABLE if artifact.manifest.kind == ADAPTER else artifact.path)


def _post_processed(config: MeasureConfig, table: EmbeddingTable, data_split: Split) -> EmbeddingTable:
    if config.post is None:
        return table
    has_vector = table.values.any(axis=1)
    fitted = fit_post(config.post, table, (data_split.item_counts() > 0) & has_vector, data_split.digest)
    # An item without a vector has none afterwards either, and not that of the centre.
    values = np.where(has_vector[:, None], fitted.apply(table.values), np.float32(0))
    return EmbeddingTable(values, table.vocabulary, fitted.space)
