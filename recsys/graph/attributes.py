"""What items have in common in the catalog: values of categories, brand and year, as nodes and as item-item edges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import polars as pl
import scipy.sparse as sp
from pydantic import Field

from recsys.config import Config
from recsys.data.catalog import ItemCatalog
from recsys.graph.edges import AT_ONCE, Edges, top_of_blocks
from recsys.types import IntArray


class AttributeConfig(Config):
    fields: tuple[Literal["categories", "brand", "year"], ...] = ("categories", "brand", "year")
    """Columns of the catalog; one that it does not have gives nothing."""
    neighbours: Annotated[int, Field(ge=1)] = 10
    """Most similar items that an item keeps of its own."""
    common: Annotated[int, Field(ge=2)] = 1000
    """A value of more items than this links no two items directly: it says little, and the pairs grow with its square. Its node stays."""


@dataclass(frozen=True)
class Attribute:
    """One field. values: str, in the order of their node numbers.  item_nums, value_nums: int64 (M,), distinct pairs, sorted."""

    values: tuple[str, ...]
    item_nums: IntArray
    value_nums: IntArray

    def edges(self, n_items: int) -> Edges:
        """Item to value. Weight: log(n / n_v) / log(n) with n_v the items of the value, in (0, 1): 1 would be a value of one item."""
        counts = np.bincount(self.value_nums, minlength=len(self.values))
        rarity = np.log(n_items / np.maximum(counts, 1)) / np.log(n_items)
        return Edges(self.item_nums, self.value_nums, rarity[self.value_nums].astype(np.float32))


def attributes(config: AttributeConfig, catalog: ItemCatalog) -> dict[str, Attribute]:
    """By field. Values of one item link nothing, those of all items say nothing: both are left out, and so are empty fields."""
    rows = catalog.table.with_columns(item_num=pl.int_range(pl.len(), dtype=pl.Int64))
    found: dict[str, Attribute] = {}
    for field in config.fields:
        if field in rows.columns:
            pairs = rows.select("item_num", value=pl.col(field))
            if field == "categories":
                pairs = pairs.explode("value")
            pairs = pairs.with_columns(pl.col("value").cast(pl.String).str.strip_chars())
            attribute = attribute_of(pairs, len(catalog))
            if attribute.values:
                found[field] = attribute
    return found


def attribute_of(pairs: pl.DataFrame, n_items: int) -> Attribute:
    """pairs: `item_num` (int64) and `value` (str; null or "" is none)."""
    pairs = pairs.filter(pl.col("value").is_not_null() & (pl.col("value") != "")).unique(["item_num", "value"])
    shared = pairs.filter((pl.len().over("value") >= 2) & (pl.len().over("value") < n_items))
    values = shared.select(pl.col("value").unique().sort()).with_row_index("value_num")
    joined = shared.join(values, on="value").sort("item_num", "value_num")
    return Attribute(tuple(values["value"].to_list()), joined["item_num"].to_numpy().astype(np.int64), joined["value_num"].to_numpy().astype(np.int64))


def shared_attribute_edges(config: AttributeConfig, found: Mapping[str, Attribute], n_items: int, *, at_once: int = AT_ONCE) -> Edges:
    """Weight of (i, j): the cosine of the two items' values, each value weighed as in `Attribute.edges`. In (0, 1].

    Each item's most similar `neighbours`, in both directions. The product of items and values is made block by block.
    """
    matrices = []
    for attribute in found.values():
        edges = attribute.edges(n_items)
        matrix = sp.csr_array((edges.weights, (edges.sources, edges.targets)), shape=(n_items, len(attribute.values)))
        matrices.append(matrix)
    if not matrices:
        return Edges.none()
    joined = sp.csr_array(sp.hstack(matrices, format="csr"))
    # Of all values, so that a common one still tells two items apart that differ in it.
    norms = np.sqrt(np.asarray(joined.multiply(joined).sum(axis=1)).ravel())
    joined = sp.csr_array(sp.diags_array(np.divide(1.0, norms, out=np.zeros(n_items), where=norms > 0).astype(np.float32)) @ joined)
    counts = np.bincount(joined.indices, minlength=joined.shape[1])
    linking = sp.csr_array(joined[:, counts <= config.common])
    transposed = sp.csr_array(linking.T)
    costs = np.asarray(linking.astype(np.bool_).astype(np.int64) @ np.bincount(linking.indices, minlength=linking.shape[1]))
    top = top_of_blocks(lambda low, high: sp.csr_array(linking[low:high] @ transposed), costs, n_items, config.neighbours, at_once=at_once)
    return Edges.of_matrix(top).both_ways(n_items)
