"""Stage `graph`: split, catalog and embedding tables -> a graph of training, an encoder fitted on it, and its vectors of all items: one more signal."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pipelines import embed, ingest, neighbours, split
from pipelines.stage import Inputs, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import sha256_of, write_json
from recsys.config import Config, digest_of
from recsys.embeddings.table import EmbeddingTable
from recsys.evaluation.evaluate import evaluate
from recsys.graph.build import GraphConfig, build_graph
from recsys.graph.config import GraphEncoderConfig
from recsys.graph.leaks import assert_no_graph_leak
from recsys.types import Scorer

VERSION = 1
SUPPORTED_UP_TO = 1_000_000
"""Item-item edges up to which a training user is looked for behind each; of more, that none is of a held-out item."""


class GraphSignal(Config):
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")] = "graph"
    """Of the signal, e.g. "graph"."""
    build: GraphConfig = GraphConfig()
    encoder: GraphEncoderConfig = GraphEncoderConfig()


class GraphStageConfig(Config):
    signal: GraphSignal = GraphSignal()
    seed: int = 0

    def digest(self) -> str:
        """Without the folder of the knowledge graph: a place. What lies in it is in `knowledge_digest`."""
        without = {"signal": {"build": {"knowledge": {"folder"}}}} if self.signal.build.knowledge is not None else None
        return digest_of(self.model_dump(mode="json", exclude=without))


def knowledge_digest(build: GraphConfig) -> str:
    """sha256 over the files of the knowledge graph; "" without one."""
    if build.knowledge is None:
        return ""
    running = hashlib.sha256()
    for file in build.knowledge.files():
        running.update(sha256_of(file).encode() if file.is_file() else b"missing")
    return running.hexdigest()


def run(config: GraphStageConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    """The artifact is an `EmbeddingTable` with the graph and the fitted model beside it."""
    from recsys.graph.link_prediction import fit_graph  # takes seconds to import
    from recsys.graph.storage import save_graph

    data, data_split, signal = ingest.load(inputs["data"]), split.load(inputs["split"]), config.signal
    board = data_split.protocol.replace("_", " ")
    tables = {artifact.manifest.metadata["name"]: embed.load(artifact) for role, artifact in inputs.items() if role.startswith("table:")}
    with surroundings.reporter.task(f"build {signal.name} ({board})", "parts") as advance:
        imagined = neighbours.load(inputs["neighbours"]) if "neighbours" in inputs else None
        graph = build_graph(signal.build, data_split, data.catalog, tables, imagined=imagined)
        advance(1, 2, "looking for leaks")
        edges = {f"{source} {relation} {target}": graph[source, relation, target].edge_index.shape[1] for source, relation, target in graph.edge_types}
        assert_no_graph_leak(data_split, graph, what=signal.name, support=sum(edges.values()) <= SUPPORTED_UP_TO)
        advance(2, 2, "")

    def validation_ndcg(scorer: Scorer) -> float:
        return evaluate(scorer, data_split.validation, ks=(10,), metrics=("ndcg",), lists=False, split=data_split).mean("ndcg@10")

    with surroundings.reporter.task(f"train {signal.name} ({board})", "epochs") as advance:
        fitted = fit_graph(
            signal.encoder,
            graph,
            data_split,
            seed=config.seed,
            checkpoint=surroundings.scratch,
            validate=validation_ndcg,
            progress=lambda done, total, values: advance(done, total, " ".join(f"{k} {v:.4f}" for k, v in values.items() if k != "epoch")),
        )
    table = fitted.model.table(data_split.items)
    table.save(folder)
    fitted.model.save(folder / "model")
    save_graph(graph, folder / "graph")
    write_json(folder / "history.json", fitted.history)
    return {
        "name": signal.name,
        "space_id": table.space_id,
        "split_hash": data_split.digest,
        "items": len(table),
        "items_without_vector": int((~table.values.any(axis=1)).sum()),
        "dimension": table.dim,
        "edges": edges,
        "epochs": len(fitted.history),
        "train_seconds": round(fitted.seconds, 3),
        "seed": config.seed,
    }


def load(artifact: Artifact) -> EmbeddingTable:
    return EmbeddingTable.load(artifact.path)


def load_scorer(artifact: Artifact) -> Scorer:
    """The signal alone, behind a dot product."""
    from recsys.graph.model import GraphModel

    return GraphModel.load(artifact.path / "model").scorer()
