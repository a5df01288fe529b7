"""Who embeds: this process, or a pool of Ray actors. They turn batches into vectors; what is missing and where it is kept, the driver alone knows."""

from pipelines.executors.base import EncodedBatch, Executor
from pipelines.executors.local import LocalExecutor
from pipelines.executors.make import make_executor
from pipelines.executors.ray_pool import RayExecutor

__all__ = ["EncodedBatch", "Executor", "LocalExecutor", "RayExecutor", "make_executor"]
