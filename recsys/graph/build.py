"""From training interactions, catalog and embedding tables to a text-attributed graph of users, items and attribute values.

| edge | weight | made of |
|---|---|---|
| user `interacts` item | 1 each distinct pair | training interactions |
| item `meets` item | c_ij / sqrt(c_i c_j), see `co_interactions` | training interactions |
| item `shares` item | cosine of the rarity-weighted values, see `attributes` | catalog |
| item `has` value (a node type a field) | log(n / n_v) / log(n) | catalog |
| item `has` entity, item `related` item | the same; 1 | knowledge graph |
| item `reads_like_<table>` item | cosine of the centred vectors, see `text_neighbours` | embedding table |
| item `imagined` item | largest product of cosines, see `synthetic_neighbours` | texts that a language model wrote for thin items |

Item-item edges stand in both directions. A held-out item has no training interactions, and so text, attribute and
knowledge edges only. Vectors are centred on the items of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from recsys.config import Config
from recsys.data.catalog import ItemCatalog
from recsys.data.split import Split
from recsys.embeddings.table import EmbeddingTable
from recsys.graph.attributes import Attribute, AttributeConfig, attributes, shared_attribute_edges
from recsys.graph.co_interactions import CoInteractionConfig, co_interaction_edges
from recsys.graph.edges import Edges
from recsys.graph.knowledge import KnowledgeConfig, read_knowledge
from recsys.graph.text_neighbours import TextNeighbourConfig, centred, text_neighbour_edges
from recsys.types import FloatArray

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

USER, ITEM, ENTITY = "user", "item", "entity"
INTERACTS, MEETS, SHARES, HAS, RELATED, READS_LIKE, IMAGINED = "interacts", "meets", "shares", "has", "related", "reads_like_", "imagined"
FROM_INTERACTIONS = frozenset({INTERACTS, MEETS})
"""Relations that know of interactions; all others are known of an item on its first day."""


class GraphConfig(Config):
    """A part that is null makes no edges."""

    co_interactions: CoInteractionConfig | None = CoInteractionConfig()
    attributes: AttributeConfig | None = AttributeConfig()
    text: TextNeighbourConfig | None = TextNeighbourConfig()
    """One relation an embedding table."""
    knowledge: KnowledgeConfig | None = None


def build_graph(config: GraphConfig, split: Split, catalog: ItemCatalog, tables: Mapping[str, EmbeddingTable], *, imagined: Edges | None = None) -> HeteroData:
    """Nodes are numbered as in the split's vocabularies. `data["item"].x`: float32 (n_items, sum of d), the centred, normalised
    vectors of the tables side by side; absent without tables. Each edge type has `edge_index` int64 (2, E) and `edge_weight`
    float32 (E,). `data.split_hash` and `data.spaces` ("name=space_id,...") say what it was made of.

    imagined: of the items of the split, in both directions; see `recsys.graph.synthetic_neighbours.through_texts`.

    Raises:
        UnknownIdError: a table or the catalog lacks an item.  DataError: see `read_knowledge`.
        SpaceMismatchError: the catalog numbers its items otherwise than the split.
    """
    from torch_geometric.data import HeteroData  # takes two seconds

    split.require_vocabularies(split.users, catalog.items, what="the catalog")
    n_items = split.n_items
    data = HeteroData()
    data.split_hash = split.digest
    data.spaces = ",".join(f"{name}={table.space_id}" for name, table in sorted(tables.items()))
    data[USER].num_nodes, data[ITEM].num_nodes = len(split.users), n_items
    _add(data, (USER, INTERACTS, ITEM), _interactions(split))
    if config.co_interactions is not None:
        _add(data, (ITEM, MEETS, ITEM), co_interaction_edges(config.co_interactions, split.train, n_items))
    found = attributes(config.attributes, _of_split(catalog, n_items)) if config.attributes is not None else {}
    if config.attributes is not None and found:
        _add(data, (ITEM, SHARES, ITEM), shared_attribute_edges(config.attributes, found, n_items))
    if config.knowledge is not None:
        knowledge = read_knowledge(config.knowledge, split.items)
        found[ENTITY] = knowledge.entities
        _add(data, (ITEM, RELATED, ITEM), knowledge.related)
    for field, attribute in found.items():
        _add_values(data, field, attribute, n_items)
    if imagined is not None:
        _add(data, (ITEM, IMAGINED, ITEM), imagined)
    warm = split.item_counts() > 0
    vectors: list[FloatArray] = []
    for name, table in tables.items():
        values = table.aligned_to(split.items)
        if config.text is not None:
            _add(data, (ITEM, READS_LIKE + name, ITEM), text_neighbour_edges(config.text, values, centre_on=warm))
        vectors.append(centred(values, warm))
    if vectors:
        data[ITEM].x = torch.from_numpy(np.concatenate(vectors, axis=1))
    return data


def _interactions(split: Split) -> Edges:
    codes = np.unique(split.train.row_nums() * split.n_items + split.train.item_nums)
    return Edges(codes // split.n_items, codes % split.n_items, np.ones(len(codes), dtype=np.float32))


def _of_split(catalog: ItemCatalog, n_items: int) -> ItemCatalog:
    """A catalog may have grown since."""
    return catalog if len(catalog) == n_items else ItemCatalog(catalog.table.head(n_items))


def _add(data: HeteroData, kind: tuple[str, str, str], edges: Edges) -> None:
    if len(edges):
        data[kind].edge_index = torch.from_numpy(np.stack([edges.sources, edges.targets]))
        data[kind].edge_weight = torch.from_numpy(edges.weights)


def _add_values(data: HeteroData, field: str, attribute: Attribute, n_items: int) -> None:
    if attribute.values:
        data[field].num_nodes = len(attribute.values)
        _add(data, (ITEM, HAS, field), attribute.edges(n_items))
