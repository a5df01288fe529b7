"""A knowledge graph of the items in RecBole's files: `<dataset>.kg` (head, relation, tail) and `<dataset>.link` (item, entity).

The recbole wheel ships one of ml-100k, made of Freebase (Zhao et al., 2019, KB4Rec).
"""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl

from recsys.config import Config
from recsys.data.sources.raw import read_utf8
from recsys.data.sources.recbole import RecBoleSource
from recsys.data.vocabulary import Vocabulary
from recsys.errors import DataError
from recsys.graph.attributes import Attribute, attribute_of
from recsys.graph.edges import Edges


class KnowledgeConfig(Config):
    dataset: str = "ml-100k"
    """Folder and stem of the files."""
    folder: Path | None = None
    """Folder that holds `<dataset>/<dataset>.kg`; null: the examples inside the recbole wheel."""
    without: tuple[str, ...] = ()
    """Relations to leave out, such as `film.film.language`."""

    def files(self) -> tuple[Path, Path]:
        """The triples and the links."""
        interactions = RecBoleSource(dataset=self.dataset, folder=self.folder).files()[0]
        return interactions.with_suffix(".kg"), interactions.with_suffix(".link")


@dataclass(frozen=True)
class Knowledge:
    """entities: item to entity, whatever the relation and its direction.  related: item to item, such as a sequel, both ways, weight 1."""

    entities: Attribute
    related: Edges


def read_knowledge(config: KnowledgeConfig, items: Vocabulary) -> Knowledge:
    """Triples that no linked item is part of are left out, and so are links of items that `items` does not hold.

    Raises:
        DataError: a file is missing or not readable, or no triple speaks of an item.
    """
    triples, links = (_read(file, names) for file, names in zip(config.files(), (("head", "relation", "tail"), ("item_id", "entity")), strict=True))
    numbers = pl.DataFrame({"item_id": list(items.ids), "item_num": np.arange(len(items))})
    linked = links.join(numbers, on="item_id").select("entity", "item_num")
    triples = triples.filter(~pl.col("relation").is_in(list(config.without)))
    triples = triples.join(linked.rename({"entity": "head", "item_num": "head_num"}), on="head", how="left")
    triples = triples.join(linked.rename({"entity": "tail", "item_num": "tail_num"}), on="tail", how="left")
    ends = [
        triples.filter(pl.col("head_num").is_not_null() & pl.col("tail_num").is_null()).select(item_num="head_num", value="tail"),
        triples.filter(pl.col("tail_num").is_not_null() & pl.col("head_num").is_null()).select(item_num="tail_num", value="head"),
    ]
    both = triples.filter(pl.col("head_num").is_not_null() & pl.col("tail_num").is_not_null() & (pl.col("head_num") != pl.col("tail_num")))
    pairs = both.select("head_num", "tail_num").unique().sort("head_num", "tail_num")
    if not len(pairs) and not any(len(end) for end in ends):
        raise DataError(f"{config.files()[0]}: no triple speaks of an item of the catalog; {config.files()[1].name} links {len(linked)} of {len(items)} items")
    related = Edges(pairs["head_num"].to_numpy().astype(np.int64), pairs["tail_num"].to_numpy().astype(np.int64), np.ones(len(pairs), dtype=np.float32))
    return Knowledge(attribute_of(pl.concat(ends), len(items)), related.both_ways(len(items)))


def _read(path: Path, names: tuple[str, ...]) -> pl.DataFrame:
    try:
        frame = pl.read_csv(StringIO(read_utf8(path)), separator="\t", infer_schema=False, quote_char=None)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: not a tab-separated atomic file: {error}") from None
    if len(frame.columns) != len(names):
        raise DataError(f"{path}: {len(names)} columns ({', '.join(names)}) are needed, found {', '.join(frame.columns)}")
    return frame.rename(dict(zip(frame.columns, names, strict=True)))
