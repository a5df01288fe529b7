"""`Split`: made once, by one documented tie rule, hashed, and shared by every model.

Two protocols. `leave_last_out`: the last event of a user is the test target, the last but one the validation target.
`held_out_items`: all interactions of a seeded share of the items leave training (they become cold); leave-last-out is
then made on what remains, and each user's last event with a held-out item is a cold case.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from recsys.artifacts.atomic import read_json, write_json
from recsys.config import Config, digest_of
from recsys.data.interactions import TIE_RULE, Interactions
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.errors import DataError
from recsys.types import BoolArray, IntArray, Queries

MIN_EVENTS = 3
"""Users with fewer events train the models and are not evaluated: one event each for input, validation and test."""


class SplitConfig(Config):
    protocol: Literal["leave_last_out", "held_out_items"] = "leave_last_out"
    held_out_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the items with interactions that `held_out_items` removes from training."""
    seed: int = 0
    """Chooses the held-out items; leave-last-out has no randomness."""


@dataclass(frozen=True)
class Cases:
    """N ranking problems with one target each.

    user_nums: int64 (N,).  inputs: N histories that a model may read, oldest first.
    seen: N rows of items that are masked in the ranking (the target never is).  targets: int64 (N,) item_num.
    """

    user_nums: IntArray
    inputs: Sequences
    seen: Sequences
    targets: IntArray

    def __post_init__(self) -> None:
        if not len(self.user_nums) == len(self.inputs) == len(self.seen) == len(self.targets):
            raise ValueError("cases with columns of different lengths")

    def __len__(self) -> int:
        return len(self.targets)

    def queries(self) -> Queries:
        return Queries(self.user_nums, self.inputs)

    @classmethod
    def of_rows(cls, rows: list[tuple[int, IntArray, IntArray, int]]) -> Cases:
        """From (user_num, input, seen, target) tuples."""
        return cls(
            np.array([r[0] for r in rows], dtype=np.int64),
            Sequences.of_rows([r[1] for r in rows]),
            Sequences.of_rows([r[2] for r in rows]),
            np.array([r[3] for r in rows], dtype=np.int64),
        )


@dataclass(frozen=True)
class Split:
    """train: one row of item_nums a user, oldest first. held_out: bool (n_items,). cold: empty for leave-last-out."""

    protocol: str
    users: Vocabulary
    items: Vocabulary
    train: Sequences
    validation: Cases
    test: Cases
    cold: Cases
    held_out: BoolArray
    digest: str

    @property
    def n_items(self) -> int:
        return len(self.items)

    def item_counts(self) -> IntArray:
        """int64 (n_items,): training interactions of each item."""
        return self.train.counts(self.n_items)

    def save(self, folder: Path) -> None:
        arrays = _arrays_of(self.train, self.validation, self.test, self.cold, self.held_out)
        save_file(arrays, folder / "split.safetensors")
        write_json(
            folder / "split.json", {"protocol": self.protocol, "digest": self.digest, "tie_rule": TIE_RULE, "users": self.users.ids, "items": self.items.ids}
        )

    @classmethod
    def load(cls, folder: Path) -> Split:
        facts, arrays = read_json(folder / "split.json"), load_file(folder / "split.safetensors")

        def sequences(name: str) -> Sequences:
            return Sequences(arrays[f"{name}.offsets"], arrays[f"{name}.item_nums"])

        def cases(name: str) -> Cases:
            return Cases(arrays[f"{name}.user_nums"], sequences(f"{name}.inputs"), sequences(f"{name}.seen"), arrays[f"{name}.targets"])

        return cls(
            protocol=facts["protocol"],
            users=Vocabulary(facts["users"]),
            items=Vocabulary(facts["items"]),
            train=sequences("train"),
            validation=cases("validation"),
            test=cases("test"),
            cold=cases("cold"),
            held_out=arrays["held_out"].astype(np.bool_),
            digest=facts["digest"],
        )


def make_split(config: SplitConfig, interactions: Interactions) -> Split:
    """Raises DataError when no user has enough events to be evaluated."""
    held_out = np.zeros(len(interactions.items), dtype=np.bool_)
    if config.protocol == "held_out_items":
        held_out = _choose_held_out(config, interactions)
    train: list[IntArray] = []
    validation: list[tuple[int, IntArray, IntArray, int]] = []
    test: list[tuple[int, IntArray, IntArray, int]] = []
    cold: list[tuple[int, IntArray, IntArray, int]] = []
    for user_num, events in enumerate(interactions.sequences()):
        warm_at = np.flatnonzero(~held_out[events])
        warm = events[warm_at]
        n_train = len(warm) if len(warm) < MIN_EVENTS else len(warm) - 2
        train.append(warm[:n_train])
        if len(warm) >= MIN_EVENTS:
            for cases, position in ((validation, -2), (test, -1)):
                cases.append((user_num, warm[:position], events[: warm_at[position]], int(warm[position])))
        cold_at = np.flatnonzero(held_out[events])
        if len(cold_at):
            before = events[: cold_at[-1]]
            history = before[~held_out[before]]
            if len(history):
                cold.append((user_num, history, before, int(events[cold_at[-1]])))
    if not test:
        raise DataError(f"no user has {MIN_EVENTS} events or more ({len(interactions)} events of {len(interactions.users)} users): nothing can be evaluated")
    parts = Sequences.of_rows(train), Cases.of_rows(validation), Cases.of_rows(test), Cases.of_rows(cold)
    digest = _digest(config, interactions, _arrays_of(*parts, held_out))
    return Split(config.protocol, interactions.users, interactions.items, *parts, held_out, digest)


def _choose_held_out(config: SplitConfig, interactions: Interactions) -> BoolArray:
    """By hash of seed and item_id: independent of row order and equal on every machine."""
    with_events = np.unique(interactions.item_nums)
    keyed = sorted(with_events.tolist(), key=lambda num: hashlib.sha256(f"{config.seed}/{interactions.items.ids[num]}".encode()).digest())
    held_out = np.zeros(len(interactions.items), dtype=np.bool_)
    held_out[keyed[: math.ceil(config.held_out_share * len(keyed))]] = True
    return held_out


def _arrays_of(train: Sequences, validation: Cases, test: Cases, cold: Cases, held_out: BoolArray) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {"train.offsets": train.offsets, "train.item_nums": train.item_nums, "held_out": held_out.astype(np.uint8)}
    for name, cases in (("validation", validation), ("test", test), ("cold", cold)):
        arrays |= {f"{name}.user_nums": cases.user_nums, f"{name}.targets": cases.targets}
        for part, rows in (("inputs", cases.inputs), ("seen", cases.seen)):
            arrays |= {f"{name}.{part}.offsets": rows.offsets, f"{name}.{part}.item_nums": rows.item_nums}
    return arrays


def _digest(config: SplitConfig, interactions: Interactions, arrays: dict[str, np.ndarray]) -> str:
    running = hashlib.sha256(digest_of([config.model_dump(mode="json"), TIE_RULE, interactions.users.digest, interactions.items.digest]).encode())
    for name in sorted(arrays):
        running.update(name.encode() + np.ascontiguousarray(arrays[name]).astype("<i8").tobytes())
    return running.hexdigest()
