"""Who embeds: this process, or a pool of Ray actors. The driver alone writes the cache, so nodes need no shared folder."""

from __future__ import annotations

import logging
import os
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from recsys import errors
from recsys.embeddings.cache import EmbeddingCache
from recsys.embeddings.configs import EncoderConfig, parse_encoder
from recsys.embeddings.content import Content
from recsys.embeddings.encoder import Encoder
from recsys.embeddings.loading import load_encoder
from recsys.errors import ConfigError, RecsysError, RetryableError, SpaceMismatchError

Progress = Callable[[int, int], None]
BATCH = 128
"""Texts a stored batch: what a killed run loses at most, times the number of workers."""


class Executor(Protocol):
    """Fills `cache` with the vectors of `contents`; only missing ones are computed, each finished batch is stored at once."""

    @property
    def name(self) -> str: ...

    def embed(self, config: EncoderConfig, contents: Sequence[Content], cache: EmbeddingCache, progress: Progress) -> None:
        """progress(done, total) after each batch. Raises RetryableError, NonFiniteError, SpaceMismatchError."""
        ...


class LocalExecutor:
    """In this process."""

    name = "local"

    def __init__(self, *, load: Callable[[EncoderConfig], Encoder] = load_encoder, batch: int = BATCH) -> None:
        self._load, self._batch = load, batch

    def embed(self, config: EncoderConfig, contents: Sequence[Content], cache: EmbeddingCache, progress: Progress) -> None:
        batches, total = _missing_batches(contents, cache, self._batch)
        if not total:
            return
        encoder = self._load(config)
        _require_space(encoder, cache.space.space_id)
        done = 0
        for batch in batches:
            cache.put(batch, encoder.encode(batch))
            done += len(batch)
            progress(done, total)


class EncoderActor:
    """Loads the encoder once, then maps batches {"row"} + {"text"} to {"row", "vector"}."""

    def __init__(self, config: dict[str, Any], space_id: str, threads: int) -> None:
        import torch

        # Ray limits an actor to one thread; the encoder is the only work on the machine.
        torch.set_num_threads(threads)
        self._encoder = load_encoder(parse_encoder(config))
        _require_space(self._encoder, space_id)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import ray

        vectors = self._encoder.encode([Content(str(text)) for text in batch["text"]])
        node = ray.get_runtime_context().get_node_id()
        return {"row": batch["row"].copy(), "vector": vectors, "node": np.array([node] * len(vectors))}


class RayExecutor:
    """A pool of `workers` actors on the cluster at `address`; None starts Ray on this machine and stops it in `close`.

    An actor reserves `cpus_per_worker` CPUs: more than half of a node's CPUs means at most one actor a node.
    `at_once`: begin with all workers; else Ray adds them when there is work for them.
    `nodes` holds the Ray node ids that computed something.
    """

    name = "ray"

    def __init__(
        self,
        address: str | None = None,
        workers: int = 1,
        *,
        threads: int | None = None,
        batch: int = BATCH,
        no_progress_seconds: float = 300.0,
        cpus_per_worker: int = 1,
        at_once: bool = False,
    ) -> None:
        self._address, self._workers, self._batch = address, workers, batch
        self._threads = threads or max(1, (os.cpu_count() or 1) // workers)
        self._patience, self._cpus, self._at_once = no_progress_seconds, cpus_per_worker, at_once
        self._owned = False
        self.nodes: set[str] = set()

    def embed(self, config: EncoderConfig, contents: Sequence[Content], cache: EmbeddingCache, progress: Progress) -> None:
        batches, total = _missing_batches(contents, cache, self._batch)
        if not total:
            return
        if config.space().space_id != cache.space.space_id:
            raise SpaceMismatchError(f"the cache holds space {cache.space.space_id}, encoder {config.name!r} makes {config.space().space_id}")
        self._connect()
        done = 0
        for block in self._watched(lambda: self._blocks(config, batches, cache.space.space_id)):
            flat = [content for batch in batches for content in batch]
            self.nodes.update(block["node"].tolist())
            cache.put([flat[row] for row in block["row"].tolist()], np.array(block["vector"], dtype=np.float32))
            done += len(block["row"])
            progress(done, total)
        if done != total:
            raise RetryableError(f"Ray returned {done} of {total} vectors; what is done is stored, run again")

    def close(self) -> None:
        """Stop the Ray that this executor started."""
        import ray

        if self._owned and ray.is_initialized():
            ray.shutdown()
        self._owned = False

    def _connect(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's own chatter would tear the progress bars; what goes wrong reaches the user as an error of ours.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        import ray
        import ray.data

        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)

        if ray.is_initialized():
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "ignore_reinit_error": True}
        try:
            with _stderr_aside():
                if self._address is not None:
                    ray.init(address=self._address, **quiet)
                else:
                    # With two CPUs the actors can take them all, and the tasks that feed them never start.
                    cpus = max(4, os.cpu_count() or 1, self._workers * self._cpus + 2)
                    ray.init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=256 * 2**20, **quiet)
        except (ConnectionError, RuntimeError, TimeoutError) as error:
            raise RetryableError(f"Ray at {self._address or 'this machine'} does not answer: {error}") from error
        self._owned = True

    def _blocks(self, config: EncoderConfig, batches: list[list[Content]], space_id: str) -> Iterator[dict[str, Any]]:
        import pyarrow as pa
        import ray

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        tables, start = [], 0
        for batch in batches:
            tables.append(pa.table({"row": np.arange(start, start + len(batch)), "text": [content.text for content in batch]}))
            start += len(batch)
        mapped = ray.data.from_arrow(tables).map_batches(
            EncoderActor,
            compute=ray.data.ActorPoolStrategy(min_size=self._workers if self._at_once else 1, max_size=self._workers),
            batch_size=None,  # a block is a batch already
            num_cpus=self._cpus,
            fn_constructor_args=(config.model_dump(mode="json"), space_id, self._threads),
        )
        for block in mapped.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            yield cast("dict[str, Any]", block)

    def _watched(self, start: Callable[[], Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        """Blocks as they come. Raises RetryableError when none comes for too long, or when Ray lost the workers."""
        arrived: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue()

        def pull() -> None:
            try:
                for block in start():
                    arrived.put(block)
                arrived.put(None)
            except BaseException as error:
                arrived.put(error)

        threading.Thread(target=pull, daemon=True).start()
        while True:
            try:
                found = arrived.get(timeout=self._patience)
            except queue.Empty:
                raise RetryableError(
                    f"Ray finished no batch for {self._patience:.0f} s; what is done is stored, run again (does the cluster have free CPUs?)"
                ) from None
            if found is None:
                return
            if isinstance(found, BaseException):
                raise _translated(found) from found
            yield found


@contextmanager
def _stderr_aside() -> Iterator[None]:
    """Ray's C++ core announces its own log level on file descriptor 2, whatever that level is. Errors are raised, so none is lost."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as sink:
            os.dup2(sink.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _translated(error: BaseException) -> BaseException:
    """The platform's own error out of Ray's wrappers; anything else of Ray's can be tried again."""
    seen: BaseException | None = error
    while seen is not None:
        cause = getattr(seen, "cause", None) or seen.__cause__
        for candidate in (seen, cause):
            if isinstance(candidate, RecsysError):
                for kind in type(candidate).__mro__:
                    if kind.__module__ == "recsys.errors":
                        return kind(str(candidate)) if kind.__name__ != "UnknownIdError" else candidate
        seen = cause if cause is not seen else None
    # An error of an actor's constructor arrives as text only: the remote traceback, whose last line names the type.
    for found in re.finditer(r"^\s*recsys\.errors\.(\w+): (.*)$", str(error), re.MULTILINE):
        named = getattr(errors, found[1], None)
        if isinstance(named, type) and issubclass(named, RecsysError) and named is not errors.UnknownIdError:
            return named(found[2])
    return RetryableError(f"Ray: {type(error).__name__}: {str(error)[-500:]}")


def _missing_batches(contents: Sequence[Content], cache: EmbeddingCache, size: int) -> tuple[list[list[Content]], int]:
    """Texts of similar length stand together, so that batches hold little padding."""
    missing = sorted(cache.missing(contents), key=lambda content: len(content.text))
    return [missing[i : i + size] for i in range(0, len(missing), size)], len(missing)


def _require_space(encoder: Encoder, space_id: str) -> None:
    if encoder.space.space_id != space_id:
        raise SpaceMismatchError(f"the cache holds space {space_id}, this encoder makes {encoder.space.space_id}; every node needs the same weights")


@contextmanager
def make_executor(kind: str, address: str | None = None, workers: int = 1, threads: int | None = None) -> Iterator[LocalExecutor | RayExecutor]:
    """ "local" or "ray"; Ray starts with the first text that is missing, and stops at the end."""
    if kind == "local":
        yield LocalExecutor()
    elif kind == "ray":
        executor = RayExecutor(address, workers, threads=threads)
        try:
            yield executor
        finally:
            executor.close()
    else:
        raise ConfigError(f"unknown executor {kind!r}; known: local, ray")
