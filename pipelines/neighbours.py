"""Stage `neighbours`: thin items + language model -> texts of items that the same people would like, and edges by way of them.

LLM4NG for a catalogue; see `recsys.graph.synthetic_neighbours`. Answers are stored as they come: a killed run loses fewer than `shard_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipelines import embed, ingest, split
from pipelines.neighbours_config import NeighboursConfig
from pipelines.stage import Inputs, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.embeddings.content import Content
from recsys.embeddings.loading import load_encoder
from recsys.errors import SpaceMismatchError
from recsys.generation.generator import Generation
from recsys.generation.opening import open_generator
from recsys.graph.edges import Edges
from recsys.graph.synthetic_neighbours import link_neighbours, thin_items, through_texts, write_neighbours

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 1
TEXTS, EDGES = "texts.parquet", "edges.parquet"


def run(config: NeighboursConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    """inputs: data, split, and table, the vectors of the items by `config.encoder`."""
    catalog, data_split, table = ingest.load(inputs["data"]).catalog, split.load(inputs["split"]), embed.load(inputs["table"])
    counts = data_split.item_counts()
    thin = thin_items(counts, catalog, config.task.template, config.most)
    generator = open_generator(config.writer, surroundings.embedding_cache.parent / "generations", shard_rows=config.shard_rows)
    with surroundings.reporter.task("write neighbours", "answers") as advance:
        done = 0

        def told(number: int, generation: Generation) -> None:
            nonlocal done
            done += 1
            advance(done, max(done, len(thin) * config.task.per_item), "")

        written = write_neighbours(config.task, catalog, thin, generator, on_done=told)
    encoder = load_encoder(config.encoder)
    if encoder.space.space_id != table.space_id:
        raise SpaceMismatchError(f"the texts would be of space {encoder.space.space_id}, the items are of {table.space_id}; give both one encoder")
    vectors = encoder.encode([Content(text) for text in written.texts]) if len(written) else np.zeros((0, table.dim), dtype=np.float32)
    kept, _, linked = link_neighbours(config.links, written, vectors, table.aligned_to(data_split.items), counts >= config.linkable)
    edges = through_texts(data_split.n_items, linked)
    pl.DataFrame({"item_id": [data_split.items.ids[item] for item in kept.of.tolist()], "text": list(kept.texts)}).write_parquet(folder / TEXTS)
    pl.DataFrame({"source": edges.sources, "target": edges.targets, "weight": edges.weights}).write_parquet(folder / EDGES)
    return {
        "thin_items": len(thin),
        "texts": len(kept),
        "missing": dict(kept.missing),
        "edges": len(edges),
        "items_linked": len(np.unique(edges.sources)),
        "generator": generator.generator_id,
        "computed": generator.misses,
        "space_id": table.space_id,
        "split_hash": data_split.digest,
    }


def load(artifact: Artifact) -> Edges:
    """By item_num of the split, in both directions."""
    frame = pl.read_parquet(artifact.file(EDGES))
    return Edges(*(frame[column].to_numpy(writable=True) for column in ("source", "target", "weight")))


def texts(artifact: Artifact) -> pl.DataFrame:
    """item_id, text: a row a text that is linked."""
    return pl.read_parquet(artifact.file(TEXTS))
