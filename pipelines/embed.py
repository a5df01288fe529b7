"""Stage `embed`: catalog -> one `EmbeddingTable` per encoder. Only texts that the content cache lacks are computed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import ingest
from pipelines.stage import Inputs, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.embeddings.cache import EmbeddingCache
from recsys.embeddings.configs import EncoderConfig
from recsys.embeddings.content import of_texts
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import DataError

VERSION = 1


def run(config: EncoderConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    catalog = ingest.load(inputs["data"]).catalog
    texts = catalog.texts(config.template)
    with_text = np.array([bool(text) for text in texts])
    if not with_text.any():
        raise DataError(f"no item has a value for any field of the template {config.template!r}; the catalog has: {', '.join(catalog.table.columns)}")
    wanted = of_texts(text for text in texts if text)
    space = config.space()
    cache = EmbeddingCache(surroundings.embedding_cache, space)
    missing = len(cache.missing(wanted))
    started = time.monotonic()
    with surroundings.reporter.task(f"embed {config.name}", "texts") as advance:
        surroundings.executor.embed(config, wanted, cache, lambda done, total: advance(done, total, ""))
    vectors = cache.get(wanted)
    # A zero row stands for an item without text: rankers leave the signal out there. How many stands in the manifest.
    values = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
    values[with_text] = vectors
    EmbeddingTable(values, catalog.items, space).save(folder)
    return {
        "name": config.name,
        "space_id": space.space_id,
        "items": len(texts),
        "items_without_text": int((~with_text).sum()),
        "dimension": int(values.shape[1]),
        "executor": surroundings.executor.name,
        "texts_computed": missing,
        "seconds": round(time.monotonic() - started, 3),
    }


def load(artifact: Artifact) -> EmbeddingTable:
    return EmbeddingTable.load(artifact.path)
