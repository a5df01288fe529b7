"""`Checkpoint`: a training of RecBole that can go on, written by its subprocess and checked by the parent."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from recsys.artifacts.atomic import sha256_of, write_bytes, write_json
from recsys.training.checkpoint import FACTS, require_own


@dataclass
class Training:
    """What a training knows beside the model as it is. weights: `Session.state` of the best epoch.  seconds, peak_mb: over
    all resumed runs."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = -1.0
    best_epoch: int = 0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    capped: str | None = None
    finished: bool = False
    seconds: float = 0.0
    peak_mb: float = 0.0


class Checkpoint:
    """Tensors as safetensors under a name of their own per epoch; the JSON, replaced last, decides which are valid.

    They hold the weights, each optimiser, the state of all random numbers (torch, numpy, Python, the loader), and what a
    model keeps beside its weights as plain numbers and tensors, such as its step of annealing. folder: None saves nothing.
    """

    def __init__(self, folder: Path | None, fingerprint: str, every: float) -> None:
        self._folder, self._fingerprint, self._every = folder, fingerprint, every
        self._saved_at = time.perf_counter()

    def save(self, session: Any, trainer: Any, training: Training) -> None:
        """Every so many seconds, and at the end. session: the worker's `Session`.  trainer: RecBole's."""
        if self._folder is None or not (training.finished or time.perf_counter() - self._saved_at >= self._every):
            return
        _, keys, *numpy_rest = np.random.get_state()  # noqa: NPY002 (RecBole draws from it)
        plain = {name: value for name, value in vars(session.model).items() if not name.startswith("restore_")}  # those are caches
        tensors = {f"now/{name}": value for name, value in session.state().items()} | {f"best/{name}": value for name, value in training.weights.items()}
        for name, optimiser in _optimisers(trainer).items():
            for number, slots in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser/{name}/{number}/{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        tensors |= {f"plain/{name}": value for name, value in plain.items() if isinstance(value, torch.Tensor) and not value.is_sparse}
        tensors |= {"random/torch": torch.get_rng_state(), "random/loader": session.loader.generator.get_state()}
        tensors["random/numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
        path = self._folder / f"checkpoint-{len(training.history):05d}.safetensors"
        write_bytes(path, safetensors.torch.save({name: value.detach().clone().contiguous() for name, value in tensors.items()}))
        facts = {
            "fingerprint": self._fingerprint,
            "tensors": path.name,
            "sha256": sha256_of(path),
            "training": {name: value for name, value in vars(training).items() if name != "weights"},
            "plain": {name: value for name, value in plain.items() if type(value) in (int, float)},
            "numpy": numpy_rest,
            "python": random.getstate(),
        }
        write_json(self._folder / FACTS, facts)
        for old in self._folder.glob("checkpoint-*.safetensors"):
            if old.name != path.name:
                old.unlink(missing_ok=True)
        self._saved_at = time.perf_counter()

    def load(self, session: Any, trainer: Any) -> Training | None:
        """Puts all into place; None where there is no checkpoint. Raises ArtifactError as `require_own` does."""
        if self._folder is None or (facts := require_own(self._folder, self._fingerprint)) is None:
            return None
        # Through memory, not a mapping: the next checkpoint deletes the file.
        tensors = safetensors.torch.load((self._folder / facts["tensors"]).read_bytes())

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        session.set_state(part("now/"))
        for name, value in (part("plain/") | facts["plain"]).items():
            setattr(session.model, name, value)
        for name, optimiser in _optimisers(trainer).items():
            document: dict[str, Any] = optimiser.state_dict() | {"state": {}}
            for place, value in part(f"optimiser/{name}/").items():
                number, slot = place.split("/")
                document["state"].setdefault(int(number), {})[slot] = value
            optimiser.load_state_dict(document)
        torch.set_rng_state(tensors["random/torch"])
        session.loader.generator.set_state(tensors["random/loader"])
        np.random.set_state(("MT19937", tensors["random/numpy"].numpy().astype(np.uint32), *facts["numpy"]))  # noqa: NPY002
        version, numbers, gauss = facts["python"]
        random.setstate((version, tuple(numbers), gauss))
        return Training(**facts["training"], weights=part("best/"))


def _optimisers(trainer: Any) -> dict[str, torch.optim.Optimizer]:
    """By the attribute of the trainer; of two names of one optimiser the later, more special one."""
    names = {id(value): name for name, value in vars(trainer).items() if isinstance(value, torch.optim.Optimizer)}
    return {name: getattr(trainer, name) for name in names.values()}
