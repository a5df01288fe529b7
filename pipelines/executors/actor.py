"""`EncoderActor`: an encoder in a process of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipelines.executors.base import EncodedBatch, Load, encode_batch, require_space
from recsys.embeddings.configs import EncoderConfig
from recsys.embeddings.content import Content
from recsys.embeddings.encoder import Encoder


class EncoderActor:
    """The constructor does nothing that can fail: an error there would reach the driver as a death without its type."""

    def __init__(self, load: Load, config: EncoderConfig, space_id: str, threads: int | None, actors_a_node: int) -> None:
        self._load, self._config, self._space_id = load, config, space_id
        self._threads, self._actors_a_node = threads, actors_a_node
        self._encoder: Encoder | None = None

    def start(self) -> str:
        """Load the model; gives the Ray id of the node."""
        import ray
        import torch

        # Ray limits an actor to one thread. Its share of the machine: all cores by as many actors as work here.
        torch.set_num_threads(self._threads or max(1, len(os.sched_getaffinity(0)) // self._actors_a_node))
        self._node = ray.get_runtime_context().get_node_id()
        self._encoder = self._load(self._config)
        require_space(self._encoder, self._space_id)
        return self._node

    def encode(self, contents: Sequence[Content]) -> EncodedBatch:
        assert self._encoder is not None, "start() comes first"
        return encode_batch(self._encoder, contents, self._node)
