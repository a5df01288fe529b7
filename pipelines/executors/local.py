"""`LocalExecutor`: in this process."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.executors.base import NO_PROGRESS_SECONDS, EncodedBatch, Load, encode_batch, require_space
from pipelines.executors.watchdog import watched
from recsys.embeddings.configs import EncoderConfig
from recsys.embeddings.content import Content
from recsys.embeddings.loading import load_encoder


class LocalExecutor:
    """One encoder, one batch at a time."""

    name = "local"
    workers = 1

    def __init__(self, *, load: Load = load_encoder, no_progress_seconds: float = NO_PROGRESS_SECONDS) -> None:
        self._load, self._patience = load, no_progress_seconds

    def encode(self, config: EncoderConfig, space_id: str, batches: Iterator[list[Content]]) -> Iterator[EncodedBatch]:
        return watched(self._encoded(config, space_id, batches), self._patience, lambda: f"in the encoder {config.name!r} of this process")

    def _encoded(self, config: EncoderConfig, space_id: str, batches: Iterator[list[Content]]) -> Iterator[EncodedBatch]:
        encoder = None
        for batch in batches:
            if encoder is None:
                encoder = self._load(config)
                require_space(encoder, space_id)
            yield encode_batch(encoder, batch, "here")
