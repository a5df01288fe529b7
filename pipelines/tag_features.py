"""Texts of a board of node classification as vectors: counted words, or a frozen encoder through the cache of vectors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.progress import Reporter
from pipelines.tag_config import EncoderFeatures, TfidfFeatures
from recsys.config import digest_of
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.cache import EmbeddingCache
from recsys.embeddings.content import of_texts
from recsys.embeddings.loading import load_encoder
from recsys.embeddings.post import FittedPost, fit_post
from recsys.embeddings.table import EmbeddingTable
from recsys.graph.encoders import scaled
from recsys.graph.text_graph import TextGraph
from recsys.types import FloatArray


class TfidfVectors:
    """See `TfidfFeatures`. `id` is the same where the vectors of a graph are."""

    def __init__(self, config: TfidfFeatures, graph: TextGraph) -> None:
        self.id = digest_of([config.model_dump(mode="json", exclude={"label"})])
        self._config, self._graph = config, graph

    @cached_property
    def values(self) -> FloatArray:
        """float32 (n, words), a row a node, zero where there is no text."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        counter = TfidfVectorizer(sublinear_tf=True, strip_accents="unicode", stop_words="english", max_features=self._config.words)
        counter.fit([text for text in self._graph.texts if text])
        found: FloatArray = counter.transform(self._graph.texts).toarray().astype(np.float32)
        return found


class EncodedVectors:
    """See `EncoderFeatures`. costs: told of what was computed, by the encoder's model."""

    def __init__(self, config: EncoderFeatures, graph: TextGraph, root: Path, reporter: Reporter, costs: dict[str, Any], batch: int) -> None:
        self.space = config.encoder.space()
        post = config.post.model_dump(mode="json") if config.post else None
        self.id = digest_of([self.space.space_id, config.max_chars, post, config.unit_variance])
        self._config, self._graph, self._reporter, self._costs, self._batch = config, graph, reporter, costs, batch
        self._cache = EmbeddingCache(root / "embeddings", self.space)
        self._encoder: Any = None

    @cached_property
    def raw(self) -> FloatArray:
        """float32 (n, d) of the graph's nodes, of length 1, zero where there is no text."""
        return self.raw_of(self._graph.texts)

    @cached_property
    def values(self) -> FloatArray:
        """float32 (n, d') that networks read: post-processed and brought to size."""
        return self._finished(self.raw)

    def values_of(self, texts: Sequence[str]) -> FloatArray:
        """float32 (m, d'): the same of other texts."""
        return self._finished(self.raw_of(texts))

    def raw_of(self, texts: Sequence[str]) -> FloatArray:
        """float32 (m, d). What the cache lacks is computed and stored a batch at a time."""
        contents = of_texts(text[: self._config.max_chars] for text in texts if text)
        missing = sorted(self._cache.missing(contents), key=lambda content: -len(content.text))
        if missing:
            self._fill(missing)
        found = np.zeros((len(texts), self.space.dim), dtype=np.float32)
        if contents:
            found[[bool(text) for text in texts]] = self._cache.get(contents)
        return found

    def _fill(self, missing: Sequence[Any]) -> None:
        if self._encoder is None:
            self._encoder = load_encoder(self._config.encoder)
        started = time.perf_counter()
        with self._reporter.task(f"embed {self._config.label}", "texts") as advance:
            for start in range(0, len(missing), self._batch):
                batch = missing[start : start + self._batch]
                self._cache.put(batch, self._encoder.encode(batch))
                advance(start + len(batch), len(missing), "")
        cost = self._costs.setdefault(f"embed {self._config.label}", {"texts": 0, "seconds": 0.0})
        cost["texts"] += len(missing)
        cost["seconds"] = round(cost["seconds"] + time.perf_counter() - started, 1)

    @cached_property
    def _post(self) -> FittedPost | None:
        if self._config.post is None:
            return None
        table = EmbeddingTable(self.raw, Vocabulary(str(node) for node in range(len(self._graph))), self.space)
        return fit_post(self._config.post, table, self._graph.has_text, self._graph.digest)

    def _finished(self, raw: FloatArray) -> FloatArray:
        import torch

        found = raw if self._post is None else np.where(raw.any(axis=1, keepdims=True), self._post.apply(raw), np.float32(0))
        return scaled(torch.from_numpy(found)).numpy() if self._config.unit_variance else found
