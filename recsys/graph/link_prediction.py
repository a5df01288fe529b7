"""Fitting a graph encoder by link prediction, and what comes out: vectors of all items, and of items that come later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.config import digest_of
from recsys.data.split import Split
from recsys.errors import LeakError
from recsys.graph.build import ITEM, USER
from recsys.graph.config import GraphEncoderConfig, LinkConfig
from recsys.graph.encoders import GraphEncoder, node_inputs
from recsys.graph.flat import FlatGraph, flatten
from recsys.graph.links import LinkBatch, Links, drawn_candidates, link_loss
from recsys.graph.messages import Messages
from recsys.graph.model import GraphModel
from recsys.graph.sampling import NeighbourSampler
from recsys.graph.storage import graph_digest
from recsys.rng import derive_seed
from recsys.training.loop import Progress, train
from recsys.types import Scorer

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData


@dataclass(frozen=True)
class GraphFit:
    """As `recsys.models.lightgcn.LightGCNFit`. history: one dict an epoch.  capped: ended by `max_seconds`."""

    model: GraphModel
    history: list[dict[str, float]]
    seconds: float
    best_epoch: int
    capped: bool
    parameters: int
    peak_mb: float


def fit_graph(
    config: GraphEncoderConfig,
    data: HeteroData,
    split: Split,
    *,
    seed: int,
    checkpoint: Path | None = None,
    validate: Callable[[Scorer], float],
    progress: Progress | None = None,
    checkpoint_seconds: float = 10.0,
) -> GraphFit:
    """Fit on `split.train` and the graph that was built of it. A share of the items is taken for new in each epoch.

    validate: higher is better; called with the model's scorer as it is after an epoch. checkpoint: folder; see `training.loop.train`.

    Raises:
        LeakError: the graph was built on another split.  DataError: no links, no text, no edges.
        NonFiniteError: loss or validation value.  ArtifactError: another training's checkpoint.
    """
    if data.split_hash != split.digest:
        raise LeakError(f"the graph was built on the split {data.split_hash[:12]}, not on {split.digest[:12]}: its edges may be targets here; build it again")
    graph = flatten(data, users=config.users, relations=config.relations)
    features = data[ITEM].x if "x" in data[ITEM] else None
    counts = torch.from_numpy(split.item_counts())
    inputs = node_inputs(config, graph, features, counts > 0)
    links = Links(split.train, history=config.link.history, users_from=graph.starts.get(USER) if config.users else None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        encoder = GraphEncoder(config, graph.n_nodes, inputs.shape[1])
    steps = Steps(config, graph, inputs, counts, encoder)
    digest = graph_digest(data)

    def run_epoch(optimiser: torch.optim.Optimizer, epoch: int) -> float:
        total = 0.0
        steps.begin()
        for batch in links.of_epoch(config.link.training.batch_size):
            loss = steps.loss(batch)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.item() * len(batch.targets)
        return total / len(links)

    def snapshot() -> GraphModel:
        return GraphModel.of(encoder, graph, inputs, split, seed=seed, graph_digest=digest, spaces=data.spaces)

    state = train(
        encoder,
        run_epoch,
        lambda: validate(snapshot().scorer()),
        config.link.training,
        seed=seed,
        fingerprint=digest_of([config.digest(), split.digest, digest, seed, torch.__version__]),
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
    )
    parameters = sum(p.numel() for p in encoder.parameters())
    model = snapshot()
    if config.link.level_new:
        model = model.levelled(split.validation, seed=seed)
    return GraphFit(model, state.history, state.seconds, state.best_epoch, state.capped, parameters, state.peak_mb)


class Steps:
    """The losses of an epoch's batches, over the whole graph or over drawn neighbourhoods."""

    def __init__(self, config: GraphEncoderConfig, graph: FlatGraph, inputs: Tensor, counts: Tensor, encoder: GraphEncoder) -> None:
        self._config, self._graph, self._inputs, self._counts, self._encoder = config, graph, inputs, counts, encoder
        self._known = counts.nonzero()[:, 0]
        self._messages: Messages | None = None
        self._sampler: NeighbourSampler | None = None

    def begin(self) -> None:
        """Choose the items that this epoch takes for new."""
        cold = torch.zeros(self._graph.n_nodes, dtype=torch.bool)
        cold[self._known] = torch.rand(len(self._known)) < self._link.cold_share
        self._messages = self._graph.messages(self._config.gnn, cold)
        large = self._messages.edge_index.shape[1] > self._link.full_batch_up_to
        self._sampler = NeighbourSampler(self._messages) if large else None
        self._seen = torch.where(cold[:, None], 0.0, self._inputs) if self._config.features == "ids" else self._inputs

    def loss(self, batch: LinkBatch) -> Tensor:
        assert self._messages is not None
        candidates = drawn_candidates(self._link, self._known, batch.targets)
        if self._sampler is None:
            vectors, members, chosen = self._encoder(self._seen, self._messages), batch.members, candidates
        else:
            seeds, local = torch.unique(torch.cat([batch.members, candidates]), return_inverse=True)
            fanouts = (self._link.fanouts * self._config.gnn.layers)[: self._config.gnn.layers]
            messages, nodes = self._sampler.sample(seeds, fanouts)
            vectors = self._encoder(self._seen, messages, nodes)
            members, chosen = local[: len(batch.members)], local[len(batch.members) :]
        users = F.embedding_bag(members, vectors, batch.offsets, mode="mean")
        return link_loss(self._link, users, F.embedding(chosen, vectors), torch.searchsorted(candidates, batch.targets), self._counts[candidates])

    @property
    def _link(self) -> LinkConfig:
        return self._config.link
