"""`RayExecutor`: a pool of actors on a Ray cluster. Nodes need the code and the weights, no shared folder: contents go out, vectors come back.

Actors of Ray's core and not a Ray Data job: that takes its blocks up front or from files that every node sees, runs readers beside the
actors, which on a small machine starve each other, cannot be stopped from outside when it stalls, and ends with a batch whose content
kills its process. Here batches are made while others are computed, and the driver sees every death.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.executors.actor import EncoderActor
from pipelines.executors.base import NO_PROGRESS_SECONDS, EncodedBatch, Load
from recsys.embeddings.configs import EncoderConfig
from recsys.embeddings.content import Content, keys_of
from recsys.embeddings.loading import load_encoder
from recsys.errors import ConfigError, RecsysError, RetryableError, SpaceMismatchError

OBJECT_STORE = 128 * 2**20
"""Bytes, where Ray is started here: batches on their way, not the data."""
AHEAD = 2
"""Batches at an actor: the one it computes and the next."""
DEATHS = 3
"""How often a batch may lose its actor before it is halved, down to the content that kills it. Other deaths are nobody's fault."""
HOPELESS = 10
"""Deaths of actors, a worker, without a finished batch between them, after which the job ends."""


@dataclass
class _Task:
    contents: list[Content]
    deaths: int = 0


@dataclass(eq=False)
class _Worker:
    """An actor and what it was given, oldest first. starting: the answer that tells when the model is loaded; None: it is."""

    actor: Any
    starting: Any
    tasks: deque[tuple[Any, _Task]] = field(default_factory=deque)


class RayExecutor:
    """A pool of `workers` actors on the cluster at `address`; None starts Ray on this machine and stops it in `close`.

    An actor reserves `cpus_per_worker` CPUs and `gpus_per_worker` GPUs, or a fraction: 0.25 puts four actors on a GPU. Actors
    for which there is no place yet join when there is.
    threads: of torch in an actor; None: the cores of its node, shared by the actors there.
    An actor that dies is replaced, and its batches are given to others. `processes` holds (Ray node id, process id) of all that computed something.
    """

    name = "ray"

    def __init__(
        self,
        address: str | None = None,
        workers: int = 1,
        *,
        threads: int | None = None,
        cpus_per_worker: float = 1,
        gpus_per_worker: float = 0,
        no_progress_seconds: float = NO_PROGRESS_SECONDS,
        load: Load = load_encoder,
    ) -> None:
        self.workers = workers
        self._address, self._threads, self._cpus, self._gpus = address, threads, cpus_per_worker, gpus_per_worker
        self._patience, self._load = no_progress_seconds, load
        self._owned = False
        self.processes: set[tuple[str, int]] = set()
        self.deaths = 0
        """Actors that were replaced so far."""

    def encode(self, config: EncoderConfig, space_id: str, batches: Iterator[list[Content]]) -> Iterator[EncodedBatch]:
        first = next(batches, None)
        if first is None:
            return
        if config.space().space_id != space_id:
            raise SpaceMismatchError(f"the cache holds space {space_id}, encoder {config.name!r} makes {config.space().space_id}")
        self.connect()
        pool = _Pool(self, config, space_id, itertools.chain([first], batches))
        try:
            yield from pool.run()
        finally:
            pool.end()

    def connect(self) -> None:
        """Raises RetryableError: no cluster there."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's own chatter would tear the progress bars; what goes wrong reaches the user as an error of ours.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        if ray.is_initialized():
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "ignore_reinit_error": True}
        try:
            with _stderr_aside():
                if self._address is not None:
                    ray.init(address=self._address, **quiet)
                else:
                    # Ray would put its workers behind all else on the machine, and start one a CPU before anything is asked of them.
                    os.environ.setdefault("RAY_worker_niceness", "0")
                    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
                    cpus = max(os.cpu_count() or 1, int(np.ceil(self.workers * self._cpus)))
                    ray.init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=OBJECT_STORE, **quiet)
        except (ConnectionError, RuntimeError, TimeoutError, ray.exceptions.RayError) as error:
            if "AuthToken" in str(error) or isinstance(error, ray.exceptions.AuthenticationError):
                raise ConfigError(f"Ray at {self._address} wants its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH if it is not in ~/.ray") from error
            raise RetryableError(f"Ray at {self._address or 'this machine'} does not answer: {_brief(error)}") from error
        self._owned = True

    @property
    def nodes(self) -> set[str]:
        return {node for node, _ in self.processes}

    def close(self) -> None:
        """Stop the Ray that this executor started, or leave the cluster that it joined."""
        import ray

        if self._owned and ray.is_initialized():
            ray.shutdown()
        self._owned = False

    def _start_worker(self, config: EncoderConfig, space_id: str) -> _Worker:
        import ray

        nodes = sum(bool(node["Alive"] and node["Resources"].get("CPU")) for node in ray.nodes())
        actors_a_node = -(-self.workers // max(1, nodes))
        kind: Any = ray.remote(EncoderActor)
        actor = kind.options(num_cpus=self._cpus, num_gpus=self._gpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD").remote(
            self._load, config, space_id, self._threads, actors_a_node
        )
        return _Worker(actor, actor.start.remote())

    def _why(self) -> str:
        import ray

        free, there = ray.available_resources(), ray.cluster_resources()
        kinds = ["CPU", *(["GPU"] if self._gpus else [])]
        counts = [f"{free.get(kind, 0):g} of {there.get(kind, 0):g} {kind}s" for kind in kinds]
        return f"free in the cluster: {', '.join(counts)}; an actor wants {self._cpus:g} CPUs{f' and {self._gpus:g} GPUs' if self._gpus else ''}"


class _Pool:
    """One job: batches to actors and back."""

    def __init__(self, executor: RayExecutor, config: EncoderConfig, space_id: str, batches: Iterator[list[Content]]) -> None:
        self._executor, self._config, self._space_id = executor, config, space_id
        self._batches = batches
        self._again: deque[_Task] = deque()
        self._workers: list[_Worker] = []
        self._deaths_in_a_row = 0

    def run(self) -> Iterator[EncodedBatch]:
        import ray

        for _ in range(self._executor.workers):
            self._workers.append(self._executor._start_worker(self._config, self._space_id))
        while self._feed():
            refs = [worker.starting for worker in self._workers if worker.starting is not None]
            refs += [ref for worker in self._workers for ref, _ in worker.tasks]
            ready, _ = ray.wait(refs, num_returns=1, timeout=self._executor._patience)
            if not ready:
                raise RetryableError(
                    f"stalled: no batch was finished for {self._executor._patience:.0f} s ({self._executor._why()}); what is done is stored, run again"
                )
            worker = next(w for w in self._workers if w.starting == ready[0] or any(ref == ready[0] for ref, _ in w.tasks))
            try:
                answer = ray.get(ready[0])
            except _lost() as error:
                refused = self._replace(worker, error)
                if refused is not None:
                    yield refused
            except ray.exceptions.RayError as error:
                raise _translated(error) from error
            else:
                if worker.starting == ready[0]:
                    worker.starting = None
                else:
                    worker.tasks = deque((ref, task) for ref, task in worker.tasks if ref != ready[0])
                    self._deaths_in_a_row = 0
                    self._executor.processes.add((answer.node, answer.process))
                    yield answer

    def end(self) -> None:
        import ray

        for worker in self._workers:
            with suppress(Exception):  # dead already, or the cluster is gone
                ray.kill(worker.actor)

    def _feed(self) -> bool:
        """Give work to who has room. False: all is done."""
        free = [worker for worker in self._workers if worker.starting is None]
        for depth in range(AHEAD):
            for worker in free:
                if len(worker.tasks) == depth and (task := self._next()) is not None:
                    worker.tasks.append((worker.actor.encode.remote(task.contents), task))
        # While all are starting nothing was taken: there is work, or the job would not have begun.
        return any(worker.tasks for worker in self._workers) or not free or bool(self._again)

    def _next(self) -> _Task | None:
        if self._again:
            return self._again.popleft()
        batch = next(self._batches, None)
        return None if batch is None else _Task(batch)

    def _replace(self, worker: _Worker, error: Exception) -> EncodedBatch | None:
        """Another actor for one that died; the batch that it computed is to blame, the one that waited is not."""
        self._executor.deaths += 1
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row > HOPELESS * self._executor.workers:
            raise RetryableError(f"{self._deaths_in_a_row} actors died without finishing a batch; what is done is stored, run again. The last: {_brief(error)}")
        tasks = [task for _, task in worker.tasks]
        self._workers[self._workers.index(worker)] = self._executor._start_worker(self._config, self._space_id)
        refused = None
        if tasks and worker.starting is None:
            blamed = tasks[0]
            blamed.deaths += 1
            if blamed.deaths >= DEATHS:
                if len(blamed.contents) == 1:
                    keys = keys_of(blamed.contents)
                    reason = f"refused by the encoder: its process died {blamed.deaths} times over this content alone: {_brief(error)}"
                    refused = EncodedBatch(keys[:0], np.zeros((0, self._config.space().dim), dtype=np.float32), {keys[0].tobytes(): reason}, 0, "", 0)
                    tasks = tasks[1:]
                else:
                    middle = len(blamed.contents) // 2
                    # Halves are suspects: one more death halves them again; a single content has to do it three times.
                    halves = [_Task(half, 0 if len(half) == 1 else DEATHS - 1) for half in (blamed.contents[:middle], blamed.contents[middle:])]
                    tasks = [*halves, *tasks[1:]]
        self._again.extend(tasks)
        return refused


def _lost() -> tuple[type[Exception], ...]:
    """What Ray raises when an actor, its node or its answer is gone."""
    from ray import exceptions

    return (exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.ObjectLostError, exceptions.OutOfMemoryError)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _translated(error: Exception) -> Exception:
    """The platform's own error, which Ray hands over as a cause; anything else of Ray's can be tried again."""
    seen: BaseException | None = error
    while seen is not None:
        cause = getattr(seen, "cause", None) or seen.__cause__
        for candidate in (seen, cause):
            if isinstance(candidate, RecsysError):
                for kind in type(candidate).__mro__:  # Ray makes a class of its own of each
                    if kind.__module__ == "recsys.errors":
                        return kind(str(candidate)) if kind.__name__ != "UnknownIdError" else candidate
        seen = cause if cause is not seen else None
    return RetryableError(f"Ray: {type(error).__name__}: {str(error)[-500:]}")


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
