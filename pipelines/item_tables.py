"""Tables that are made of a split without an encoder, and their post-processing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from recsys.config import Config, digest_of
from recsys.data.catalog import ItemCatalog
from recsys.data.split import Split
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.lexical import random_table, tfidf_table
from recsys.embeddings.post import PostConfig, fit_post
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import SpaceMismatchError
from recsys.rng import numpy_generator
from recsys.types import BoolArray, FloatArray


class RandomVectors(Config):
    kind: Literal["random"] = "random"
    dim: Annotated[int, Field(ge=1)] = 384
    seed: int = 0


class TfIdfVectors(Config):
    kind: Literal["tfidf"] = "tfidf"
    template: str
    """As an encoder's."""
    dim: Annotated[int, Field(ge=1)] = 256
    seed: int = 0
    """Of the randomised decomposition."""


Made = Annotated[RandomVectors | TfIdfVectors, Field(discriminator="kind")]


def made_table(made: RandomVectors | TfIdfVectors, split: Split, catalog: Callable[[], ItemCatalog]) -> EmbeddingTable:
    """One vector an item of `split.items`; `catalog` is asked for only where texts are read."""
    if isinstance(made, RandomVectors):
        return random_table(split.items, made.dim, made.seed)
    options = {"template": made.template, "dim": made.dim, "seed": made.seed}
    items = catalog()
    return tfidf_table(items.texts(made.template), items.items, split.item_counts() > 0, split.digest, **options)  # type: ignore[arg-type]


def post_processed(post: PostConfig | None, table: EmbeddingTable, split: Split) -> EmbeddingTable:
    """`table`, whose rows are those of `split.items`, by `post` fitted on the items of the training part."""
    if post is None:
        return table
    has_vector = table.values.any(axis=1)
    fitted = fit_post(post, table, (split.item_counts() > 0) & has_vector, split.digest)
    # An item without a vector has none afterwards either, and not that of the centre.
    values = np.where(has_vector[:, None], fitted.apply(table.values), np.float32(0))
    return EmbeddingTable(values, table.vocabulary, fitted.space)


def concatenated(tables: Sequence[EmbeddingTable], items: Vocabulary, weights: Sequence[float] | None = None) -> EmbeddingTable:
    """Each item's unit vectors of all tables side by side, times the tables' weights (None: 1 each), to unit length.

    A cosine is the mean of the tables' cosines by the squares of the weights. Where a table lacks an item, a random vector stands, which is
    near to no other: with nothing there, what is known of the item would count for more than the same of an item that has all. An item
    that all tables lack has none.

    Raises:
        UnknownIdError: a table does not cover `items`.  SpaceMismatchError: tables fitted on different splits.
    """
    factors = weights or [1.0] * len(tables)
    found = [_unit(table.aligned_to(items)) for table in tables]
    known = np.any([part.any(axis=1) for part in found], axis=0)
    parts = [_filled(part, known, f"part {number}") * np.float32(factor) for number, (part, factor) in enumerate(zip(found, factors, strict=True))]
    spaces = [table.space for table in tables]
    splits = {space.split_hash for space in spaces} - {""}
    if len(splits) > 1:
        raise SpaceMismatchError(f"tables fitted on different splits cannot stand side by side: {', '.join(sorted(split[:12] for split in splits))}")
    space = EmbeddingSpace(
        model=" + ".join(space.model for space in spaces), revision=digest_of([*(space.space_id for space in spaces), *(weights or ())]), tokenizer="",
        template=" + ".join(space.template for space in spaces), max_length=0, layer=-1, pooling="concatenated, random where missing", attention="none",
        normalise=True, dtype="float32", dim=sum(space.dim for space in spaces), split_hash="".join(splits),
    )  # fmt: skip
    return EmbeddingTable(_unit(np.concatenate(parts, axis=1)), items, space)


def _filled(part: FloatArray, known: BoolArray, name: str) -> FloatArray:
    missing = known & ~part.any(axis=1)
    drawn = numpy_generator(0, name).standard_normal(part.shape).astype(np.float32)
    filled: FloatArray = np.where(missing[:, None], _unit(drawn), part)
    return filled


def _unit(values: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)
