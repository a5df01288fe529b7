"""`GraphModel`: a fitted graph encoder with the graph that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from recsys.artifacts.atomic import read_json, write_bytes, write_json
from recsys.config import digest_of
from recsys.data.split import Cases, Split
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import ArtifactError, DataError
from recsys.graph.build import USER
from recsys.graph.config import GraphEncoderConfig
from recsys.graph.edges import Edges
from recsys.graph.encoders import GraphEncoder, scaled
from recsys.graph.flat import FlatGraph
from recsys.graph.levelling import as_new, new_item_bonus
from recsys.graph.messages import Messages
from recsys.graph.sampling import NeighbourSampler
from recsys.graph.scorer import GraphScorer
from recsys.types import FloatArray

FORMAT = 1
_FILES = ("graph_model.safetensors", "graph_model.json")


@dataclass(frozen=True)
class GraphModel:
    """inputs: float32 (n_nodes, k), what the encoder reads; see `node_inputs`.
    vectors: float32 (n_nodes, d), of all nodes as they are now; 0 where the graph and the texts know nothing of a node.
    counts: int64 (n_items,), training interactions.
    new_bonus: what the scorer adds for items without any; see `recsys.graph.levelling`.
    """

    encoder: GraphEncoder
    graph: FlatGraph
    inputs: Tensor
    counts: Tensor
    vectors: Tensor
    space: EmbeddingSpace
    item_digest: str
    new_bonus: float = 0.0

    @classmethod
    def of(cls, encoder: GraphEncoder, graph: FlatGraph, inputs: Tensor, split: Split, *, seed: int, graph_digest: str, spaces: str) -> Self:
        """spaces: "name=space_id,..." of the texts. The space's id covers configuration, graph, split, texts and seed."""
        config = encoder.config
        space = EmbeddingSpace(
            model=f"graph-{config.gnn.kind}-{config.features}",
            revision=digest_of([config.digest(), graph_digest, seed]),
            tokenizer="",
            template=spaces if config.features == "text" else "",
            max_length=0,
            layer=config.gnn.layers,
            pooling="",
            attention="",
            normalise=config.link.cosine,
            dtype="float32",
            dim=config.dim + (inputs.shape[1] if config.skip else 0),
            split_hash=split.digest,
        )
        return cls(encoder, graph, inputs, torch.from_numpy(split.item_counts()), _vectors(encoder, graph, inputs), space, split.items.digest)

    @property
    def config(self) -> GraphEncoderConfig:
        return self.encoder.config

    def items(self) -> FloatArray:
        """float32 (n_items, d)."""
        return self.vectors[: self.graph.n_items].numpy()

    def table(self, items: Vocabulary) -> EmbeddingTable:
        """One more signal. items: of the split that it was fitted on."""
        return EmbeddingTable(self.items(), items, self.space)

    def levelled(self, cases: Cases, *, seed: int) -> Self:
        """The same, whose scorer finds a new item as often as if its edges were known, by `cases` with known targets: those of validation."""
        known = (self.counts > 0).numpy()
        new = as_new(self.encoder, self.graph, self.inputs, known, seed=seed)
        return replace(self, new_bonus=new_item_bonus(replace(self, new_bonus=0.0).scorer(), new, known, cases))

    def scorer(self) -> GraphScorer:
        items = self.items()
        weights = self.counts.numpy() / max(int(self.counts.sum()), 1)
        users = None
        if self.config.users:
            start = self.graph.starts[USER]
            users = self.vectors[start : start + self._count_of(USER)].numpy()
        average = (weights @ items).astype(np.float32)
        return GraphScorer(
            items,
            (items != 0).any(axis=1),
            average,
            users,
            history=self.config.link.history,
            item_digest=self.item_digest,
            new=weights == 0,
            bonus=self.new_bonus,
        )

    def vectors_of_new(self, edges: Mapping[str, Edges], features: FloatArray | None = None, *, count: int | None = None) -> FloatArray:
        """float32 (m, d) of m items that the graph does not have, without training. Nothing in the graph moves: messages go to the new items only.

        edges: relation -> its edges with their weights as `build_graph` makes them; sources are nodes of the graph (an item_num, or
            a value's number + `graph.starts[field]`), targets 0..m-1.
        features: float32 (m, k), the tables' vectors side by side, centred and normalised with those of the graph (`centred`); with `features: ids`
            None, and m is `count`.

        Raises:
            DataError: features that do not fit, edges beyond either side, or a relation that the graph does not have.
        """
        text = self.config.features == "text"
        m, n, width = len(features) if features is not None else count or 0, self.graph.n_nodes, self.inputs.shape[1]
        if text != (features is not None) or (features is not None and features.shape[1:] != (width,)):
            wanted = f"features float32 (m, {width})" if text else "a count and no features"
            raise DataError(f"new items: {wanted} are needed, got {'none' if features is None else features.shape}")
        for relation, found in edges.items():
            if relation not in self.graph.scales:
                raise DataError(f"new items: the graph has no relation {relation!r}; it has: {', '.join(self.graph.scales)}")
            if len(found) and (found.sources.min() < 0 or found.sources.max() >= n or found.targets.min() < 0 or found.targets.max() >= m):
                raise DataError(f"new items: edges go from nodes 0..{n - 1} to new items 0..{m - 1}; those of {relation!r} do not")
        index, weights = self._with(edges)
        whole = Messages.of(self.config.gnn.kind, index, weights, n + m)
        messages, nodes = NeighbourSampler(whole).sample(torch.arange(n, n + m), (None,) * self.config.gnn.layers)
        more = torch.zeros(m, width) if features is None else scaled(torch.from_numpy(features))
        rows = torch.cat([self.inputs, more])[nodes]
        with torch.no_grad():
            if self.encoder.ids is not None:
                rows = rows * torch.cat([self.encoder.ids.weight, torch.zeros(m, self.config.dim)])[nodes]
            vectors = self.encoder.with_text(self.encoder.propagate(rows, messages)[:m], rows[:m])
        reached = torch.zeros(n + m, dtype=torch.bool).index_fill_(0, index[1], True)[n:]
        return _told(self.config, vectors, more, reached).numpy()

    def _with(self, edges: Mapping[str, Edges]) -> tuple[Tensor, Tensor]:
        """The graph's edges and new ones, those of one pair added up."""
        n = self.graph.n_nodes
        sources = np.concatenate([np.zeros(0, dtype=np.int64), *(found.sources for found in edges.values())])
        targets = np.concatenate([np.zeros(0, dtype=np.int64), *(found.targets for found in edges.values())])
        scaled_weights = [found.weights * np.float32(self.graph.scales[relation]) for relation, found in edges.items()]
        codes, places = np.unique(targets * n + sources, return_inverse=True)
        totals = np.bincount(places, np.concatenate([np.zeros(0, dtype=np.float32), *scaled_weights]), len(codes)).astype(np.float32)
        index = torch.from_numpy(np.stack([codes % n, codes // n + n]))
        return torch.cat([self.graph.edge_index, index], dim=1), torch.cat([self.graph.weights, torch.from_numpy(totals)])

    def save(self, folder: Path) -> None:
        tensors = {f"encoder.{name}": value for name, value in self.encoder.state_dict().items()}
        tensors |= {"edge_index": self.graph.edge_index, "weights": self.graph.weights, "lasting": self.graph.lasting, "counts": self.counts}
        tensors |= {"vectors": self.vectors, "inputs": self.inputs}
        write_bytes(folder / _FILES[0], safetensors.torch.save({name: value.detach().contiguous() for name, value in tensors.items()}))
        facts = {"format": FORMAT, "config": self.config.model_dump(mode="json"), "space": self.space.model_dump(mode="json"), "item_digest": self.item_digest}
        facts |= {"new_bonus": self.new_bonus} if self.new_bonus else {}
        write_json(folder / _FILES[1], facts | {"starts": dict(self.graph.starts), "n_nodes": self.graph.n_nodes, "scales": dict(self.graph.scales)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises ArtifactError: files missing, or written by another version."""
        try:
            facts = read_json(folder / _FILES[1])
            tensors = safetensors.torch.load((folder / _FILES[0]).read_bytes())
        except FileNotFoundError as error:
            raise ArtifactError(f"{folder}: no saved graph model ({Path(error.filename).name} is missing)") from None
        if facts["format"] != FORMAT:
            raise ArtifactError(f"{folder}: graph model format {facts['format']}, this code reads {FORMAT}")
        config = GraphEncoderConfig.parse(facts["config"], source=str(folder))
        graph = FlatGraph(facts["starts"], facts["n_nodes"], tensors["edge_index"], tensors["weights"], tensors["lasting"], facts["scales"])
        encoder = GraphEncoder(config, graph.n_nodes, tensors["inputs"].shape[1]).eval()
        encoder.load_state_dict({name.removeprefix("encoder."): value for name, value in tensors.items() if name.startswith("encoder.")})
        space = EmbeddingSpace.parse(facts["space"], source=str(folder))
        return cls(encoder, graph, tensors["inputs"], tensors["counts"], tensors["vectors"], space, facts["item_digest"], facts.get("new_bonus", 0.0))

    def _count_of(self, kind: str) -> int:
        start = self.graph.starts[kind]
        return min((s for s in self.graph.starts.values() if s > start), default=self.graph.n_nodes) - start


def _vectors(encoder: GraphEncoder, graph: FlatGraph, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        vectors = encoder.with_text(encoder(inputs, graph.messages(encoder.config.gnn)), inputs)
    return _told(encoder.config, vectors, inputs, graph.reached)


def _told(config: GraphEncoderConfig, vectors: Tensor, inputs: Tensor, reached: Tensor) -> Tensor:
    """A bias alone is no vector: nodes that nothing tells of are 0. An MLP hears of no neighbour."""
    told = (inputs != 0).any(dim=1)
    if config.gnn.kind != "mlp":
        told |= reached
    return torch.where(told[:, None], vectors, 0.0)
