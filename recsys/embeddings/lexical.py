"""What every encoder should beat: random vectors, and TF-IDF brought to few dimensions (latent semantic analysis)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys.config import digest_of
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import ConfigError, DataError
from recsys.rng import derive_seed, numpy_generator
from recsys.types import BoolArray


def random_table(items: Vocabulary, dim: int, seed: int) -> EmbeddingTable:
    """Unit vectors in all directions alike."""
    values = numpy_generator(seed, "random vectors").standard_normal((len(items), dim))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return EmbeddingTable(values.astype(np.float32), items, _space("random", digest_of([seed, list(items.ids)]), "", dim, ""))


def tfidf_table(texts: Sequence[str], items: Vocabulary, training_items: BoolArray, split_hash: str, *, template: str, dim: int, seed: int) -> EmbeddingTable:
    """Words of a text by TF-IDF, then the leading `dim` right singular vectors (Deerwester et al., 1990), to unit length.

    texts: one an item, "" where there is none: its vector is zero, as is that of an item without a known word.
    training_items: bool (n,): vocabulary, document frequencies and axes are taken of these alone.

    Raises:
        DataError: no training item with a text.  ConfigError: more dimensions than words or items.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = np.flatnonzero(training_items & np.array([bool(text) for text in texts]))
    if not len(known):
        raise DataError(f"TF-IDF: no training item has a text by the template {template!r}")
    counter = TfidfVectorizer(sublinear_tf=True, strip_accents="unicode")
    fitted = counter.fit_transform([texts[row] for row in known.tolist()])
    if dim >= min(fitted.shape):
        raise ConfigError(f"TF-IDF: dim {dim} of {fitted.shape[0]} items with {fitted.shape[1]} words; use fewer")
    # The seed of a numpy RandomState has 32 bits.
    axes = TruncatedSVD(dim, random_state=derive_seed(seed, "tfidf") % 2**32).fit(fitted)
    values = axes.transform(counter.transform(texts))
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    values = np.divide(values, norms, out=np.zeros_like(values), where=norms > 1e-12)
    revision = digest_of([seed, sorted(counter.vocabulary_), dim])
    return EmbeddingTable(values.astype(np.float32), items, _space("tfidf", revision, template, dim, split_hash))


def _space(model: str, revision: str, template: str, dim: int, split_hash: str) -> EmbeddingSpace:
    return EmbeddingSpace(
        model=model, revision=revision, tokenizer="words" if template else "none", template=template, max_length=1_000_000, layer=0,
        pooling="none", attention="none", normalise=True, dtype="float32", dim=dim, split_hash=split_hash,
    )  # fmt: skip
