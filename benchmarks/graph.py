"""How the text-attributed graph and its network grow: synthetic data of 1e5 to 1e7 interactions and 1e4 to 1e6 items.

Items are a tenth of the interactions, and so are users; popularity falls like the inverse of the rank. Each item has a brand (fifty items
share one on average), one of a thousand categories and a text vector of 64 dimensions. Each point runs in a process of its own
with a cap; what the cap cuts is shown as capped. Peak memory is that of the process during the stage, the data included.

Build: all relations, that is user-item, co-interaction (window 3, 20 neighbours), shared attributes and text neighbours (10 each;
exact below 50,000 items, by an inverted file beyond). Pass: one step of a training on the whole graph of items, forward, backward and
the optimiser's step: SAGE over the texts, two layers, 64 wide, 4,096 links. Epoch: all links once, in steps of 1,024 that each draw a
neighbourhood (10 and 5 neighbours a node); of more steps than 20 the time is that of 20, in proportion.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks import _synthetic
from benchmarks._child import Child, own
from benchmarks._meter import metered
from benchmarks._progress import say
from benchmarks._torch import ready
from benchmarks.scaling_plot import draw
from recsys.data.catalog import ItemCatalog
from recsys.data.sequences import Sequences
from recsys.data.split import Cases, Split
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.table import EmbeddingTable
from recsys.rng import numpy_generator

SIZES, SMALL = (100_000, 1_000_000, 10_000_000), (2_000, 20_000)
STAGES = ("build", "pass", "epoch")
CAP = 900.0
"""Seconds of a point, all of its stages."""
STEPS, BATCH, WHOLE_BATCH, DIM, FANOUTS = 20, 1_024, 4_096, 64, (10, 5)
CATEGORIES, ITEMS_A_BRAND = 1_000, 50
TITLE = "Graphs by size: building, one step on the whole graph, one epoch of drawn neighbourhoods"


def run(*, small: bool = False, threads: int = 2, cap: float = CAP) -> dict[str, Any]:
    points: list[dict[str, Any]] = []
    for n_events in SMALL if small else SIZES:
        size = {"interactions": n_events, "users": n_events // 10, "items": n_events // 10}
        with Child(own("benchmarks.graph:point", {"n_events": n_events, "threads": threads}), cap=cap, threads=threads) as child:
            for message in child:
                say(f"graph, {n_events:,} interactions, {message['stage']}: {message['seconds']} s, peak {message['peak_mb']} MB, {message['what']}")
                points.append({**size, **message, "capped": False})
        done = {point["stage"] for point in points if point["interactions"] == n_events}
        points += [{**size, "stage": stage, "seconds": cap, "peak_mb": None, "what": "", "capped": True} for stage in STAGES if stage not in done]
    return {"threads": threads, "cap_seconds": cap, "points": points, "notes": [" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[1:]]}


def picture(figures: dict[str, Any], path: Path) -> None:
    draw(figures["points"], path, stages=STAGES, title=TITLE)


def world(n_events: int) -> tuple[Split, ItemCatalog, EmbeddingTable]:
    """All events are training."""
    n_users = n_items = n_events // 10
    users, items = _synthetic.events(n_events, n_users, n_items)
    order = np.argsort(users, kind="stable")
    offsets = np.concatenate([[0], np.bincount(users, minlength=n_users).cumsum()])
    train, none = Sequences(offsets, items[order]), Cases.of_rows([])
    vocabulary = Vocabulary([f"i{item}" for item in range(n_items)])
    people = Vocabulary([f"u{user}" for user in range(n_users)])
    split = Split("benchmark", people, vocabulary, train, none, none, none, np.zeros(n_items, dtype=np.bool_), digest="benchmark")
    generator = numpy_generator(0, "benchmarks", "graph")
    brands = generator.integers(max(n_items // ITEMS_A_BRAND, 1), size=n_items)
    categories = generator.integers(CATEGORIES, size=n_items)
    columns = pl.DataFrame({"item_id": list(vocabulary.ids), "brand": brands, "category": categories}).cast(pl.String)
    catalog = ItemCatalog(columns.select("item_id", "brand", categories=pl.concat_list("category")))
    space = EmbeddingSpace(
        model="random", revision="", tokenizer="", template="", max_length=1, layer=0, pooling="", attention="", normalise=False, dtype="float32", dim=DIM
    )
    return split, catalog, EmbeddingTable(generator.standard_normal((n_items, DIM), dtype=np.float32), vocabulary, space)


def point(n_events: int, threads: int) -> Iterator[dict[str, Any]]:
    """In the child: one message a stage."""
    from recsys.graph.build import ITEM, GraphConfig, build_graph
    from recsys.graph.config import GnnConfig, GraphEncoderConfig, LinkConfig
    from recsys.graph.encoders import GraphEncoder, node_inputs
    from recsys.graph.flat import flatten
    from recsys.graph.link_prediction import Steps
    from recsys.graph.links import Links
    from recsys.training.config import TrainingConfig

    ready(threads)
    split, catalog, table = world(n_events)
    with metered() as cost:
        data = build_graph(GraphConfig(), split, catalog, {"random": table})
    edges = sum(data[kind].edge_index.shape[1] for kind in data.edge_types)
    yield {"stage": "build", **cost, "what": f"{edges:,} edges"}
    del catalog, table
    graph, counts = flatten(data, users=False), torch.from_numpy(split.item_counts())
    gnn = GnnConfig(kind="sage", layers=2, hidden=DIM)

    def steps(batch: int, up_to: int) -> tuple[Steps, Links, torch.optim.Optimizer]:
        link = LinkConfig(fanouts=FANOUTS, full_batch_up_to=up_to, history=20, training=TrainingConfig(batch_size=batch))
        config = GraphEncoderConfig(gnn=gnn, dim=DIM, link=link)
        inputs = node_inputs(config, graph, data[ITEM].x, counts > 0)
        encoder = GraphEncoder(config, graph.n_nodes, inputs.shape[1])
        return Steps(config, graph, inputs, counts, encoder), Links(split.train, history=link.history), torch.optim.Adam(encoder.parameters(), fused=True)

    def train(losses: Steps, links: Links, optimiser: torch.optim.Optimizer, batch: int, at_most: int) -> None:
        losses.begin()
        for one in itertools.islice(links.of_epoch(batch), at_most):
            loss = losses.loss(one)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    whole = steps(WHOLE_BATCH, 10**12)
    with metered() as cost:
        train(*whole, WHOLE_BATCH, 1)
    yield {"stage": "pass", **cost, "what": f"{graph.edge_index.shape[1]:,} messages a layer"}
    del whole
    drawn = steps(BATCH, 0)
    n_steps = -(-len(drawn[1]) // BATCH)
    with metered() as cost:
        train(*drawn, BATCH, STEPS)
    cost["seconds"] = round(cost["seconds"] * max(1.0, n_steps / STEPS), 3)
    yield {"stage": "epoch", **cost, "what": f"{n_steps:,} steps" + (f", from {STEPS}" if n_steps > STEPS else "")}
