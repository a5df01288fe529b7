"""New items on their way into a model: what callers send becomes rows of the catalogue and texts to encode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from recsys.data.catalog import ItemCatalog
from recsys.errors import DataError, SpaceMismatchError
from recsys.serving.bundle import Bundle
from recsys.serving.item_encoder import ItemEncoder, template_of
from recsys.types import FloatArray


def new_rows(catalog: ItemCatalog, items: Sequence[Mapping[str, Any]]) -> ItemCatalog:
    """Rows with the columns of `catalog`. All or none.

    Raises:
        DataError: no items, an id given twice or held already, a field that the catalog does not have or of another type.
    """
    if not items:
        raise DataError("no new items were given")
    schema = catalog.table.schema
    ids = checked_ids([item.get("item_id") for item in items], "item_id of each new item")
    twice = sorted({i for i in ids if ids.count(i) > 1} | {i for i in ids if i in catalog.items})
    if twice:
        raise DataError(f"items that the model holds already or that are given twice: {', '.join(map(repr, twice[:5]))}")
    for item in items:
        unknown = set(item) - set(schema)
        if unknown:
            raise DataError(f"item {item['item_id']!r} has fields that the catalog does not have: {sorted(unknown)}; it has: {', '.join(schema)}")
    rows = [{name: _checked_field(item, name, kind) for name, kind in schema.items()} for item in items]
    return ItemCatalog(pl.DataFrame(rows, schema=schema))


def encode_rows(bundle: Bundle, encoder: ItemEncoder, signal: str, new: ItemCatalog) -> FloatArray:
    """float32 (m, d): the vectors of `new` for one signal of the bundle's ranker.

    Raises:
        DataError: no encoder for the signal, one that reads no texts, or an item without text.
        SpaceMismatchError: the encoder on this machine gives another space than the ranker was trained on.
    """
    config = bundle.encoders.get(signal)
    if config is None:
        raise DataError(f"the bundle has no encoder for the signal {signal!r}; this model cannot take in new items")
    template = template_of(config)
    if not template:
        raise DataError(f"the encoder of the signal {signal!r} looks at pictures alone; this model cannot take in new items, which come with texts")
    texts = new.texts(template)
    without = [i for i, text in zip(new.items.ids, texts, strict=True) if not text.strip()]
    if without:
        raise DataError(f"items without text: {', '.join(map(repr, without[:5]))}; the template {template!r} found none of its fields")
    space, vectors = encoder.encode(config, texts)
    expected = bundle.ranker.spaces[signal]
    if space != expected:
        raise SpaceMismatchError(f"signal {signal!r}: the ranker was trained on the space {expected}, the encoder here gives {space}")
    return vectors


def checked_ids(ids: Sequence[Any], what: str) -> list[str]:
    """One string instead of a list, or numbers instead of strings, are the two mistakes everyone makes once."""
    if isinstance(ids, str):
        raise DataError(f"{what}: expected a list of ids, got the single string {ids!r}; write [{ids!r}]")
    for one in ids:
        if not isinstance(one, str) or not one:
            raise DataError(f"{what}: ids are strings, got {one!r} ({type(one).__name__})")
    return list(ids)


def _checked_field(item: Mapping[str, Any], name: str, kind: pl.DataType) -> Any:
    """Columns of a catalog hold strings (or nothing) and lists of strings; polars would turn 5 into "5" in silence."""
    value = item.get(name)
    if isinstance(kind, pl.List):
        value = [] if value is None else value
        fits = isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
    else:
        fits = value is None or isinstance(value, str)
    if not fits:
        raise DataError(f"item {item['item_id']!r}: field {name!r} must be {'a list of strings' if isinstance(kind, pl.List) else 'a string'}, got {value!r}")
    return value
