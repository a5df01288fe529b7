"""Checkpoints of a training: tensors in safetensors, facts in JSON. A kill at any moment leaves a readable pair."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from recsys.artifacts.atomic import read_json, sha256_of, write_bytes, write_json
from recsys.errors import ArtifactError

FACTS = "checkpoint.json"


@dataclass
class TrainingState:
    """What the loop knows besides weights. `history`: one dict of numbers an epoch, without times (two equal runs
    have equal histories)."""

    epoch: int = 0
    best: float | None = None
    best_epoch: int = 0
    stale: int = 0
    seconds: float = 0.0
    finished: bool = False
    capped: bool = False
    """The training ended by `max_seconds`, not by itself."""
    peak_mb: float = 0.0
    """Highest resident memory of the processes that trained, in MiB."""
    history: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(folder: Path, fingerprint: str, state: TrainingState, module: nn.Module, optimiser: torch.optim.Optimizer, best: dict[str, Tensor]) -> None:
    """The tensors get a name of their own per epoch; the JSON, replaced last, decides which are valid."""
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()} | {f"best.{name}": value for name, value in best.items()}
    optimiser_state = optimiser.state_dict()
    for number, slots in optimiser_state["state"].items():
        tensors |= {f"optimiser.{number}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    tensors["rng"] = torch.get_rng_state()
    # Tied tensors share memory, which safetensors refuses; clones do not.
    data = safetensors.torch.save({name: value.detach().clone().contiguous() for name, value in tensors.items()})
    name = f"checkpoint-{state.epoch:05d}.safetensors"
    write_bytes(folder / name, data)
    write_json(folder / FACTS, {"fingerprint": fingerprint, "tensors": name, "sha256": sha256_of(folder / name), "state": vars(state)})
    for old in folder.glob("checkpoint-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def load_checkpoint(folder: Path, fingerprint: str, module: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[TrainingState, dict[str, Tensor]] | None:
    """Puts weights and optimiser slots into place; None when there is no checkpoint.

    Raises:
        ArtifactError: made by another configuration, split or seed, or damaged.
    """
    facts = require_own(folder, fingerprint)
    if facts is None:
        return None
    # Through memory, not a mapping: the parameters must not sit on a file that the next checkpoint deletes.
    tensors = safetensors.torch.load((folder / facts["tensors"]).read_bytes())
    module.load_state_dict({name.removeprefix("module."): t for name, t in tensors.items() if name.startswith("module.")})
    document = optimiser.state_dict()
    document["state"] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, number, slot = name.split(".")
            document["state"].setdefault(int(number), {})[slot] = value.clone()
    optimiser.load_state_dict(document)
    torch.set_rng_state(tensors["rng"])
    best = {name.removeprefix("best."): t.clone() for name, t in tensors.items() if name.startswith("best.")}
    return TrainingState(**facts["state"]), best


def require_own(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The facts of the checkpoint in `folder`, its `tensors` verified; None without one.

    Raises:
        ArtifactError: made by another configuration, split or seed, or damaged.
    """
    if not (folder / FACTS).is_file():
        return None
    facts: dict[str, Any] = read_json(folder / FACTS)
    if facts["fingerprint"] != fingerprint:
        raise ArtifactError(f"{folder}: a checkpoint of another training ({facts['fingerprint'][:12]}, this one is {fingerprint[:12]}); delete the folder")
    path = folder / facts["tensors"]
    if not path.is_file() or sha256_of(path) != facts["sha256"]:
        raise ArtifactError(f"{path}: missing or damaged (sha256 differs); delete the folder {folder} to train from the start")
    return facts
