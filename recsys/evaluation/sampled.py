"""Targets among a few sampled items. Only to reproduce tables that were made so, such as A-LLMRec's Hit@1 among 1 + 19:
sampled metrics can order models otherwise than the whole catalogue does (Krichene and Rendle, KDD 2020)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
import safetensors
import safetensors.numpy

from recsys.artifacts.atomic import write_bytes
from recsys.data.split import Cases, Split
from recsys.errors import ArtifactError, DataError, SpaceMismatchError
from recsys.evaluation.chunks import model_name, refuse_other_items, scored_chunks
from recsys.evaluation.evaluate import Evaluation
from recsys.evaluation.metrics import METRICS
from recsys.types import IntArray, Scorer

Part = Literal["validation", "test", "cold"]
FORMAT = "1"


@dataclass(frozen=True)
class Negatives:
    """Fixed negatives of each case of one part of one split.

    item_nums: int64 (N, M), read-only; rows in the order of the cases. Distinct, never the target and nothing that the
    user has read (`inputs` and `seen`).
    """

    item_nums: IntArray
    part: Part
    split_digest: str
    seed: int

    def __post_init__(self) -> None:
        self.item_nums.flags.writeable = False

    @property
    def digest(self) -> str:
        """sha256 of the list and of what it belongs to."""
        head = f"{FORMAT}/{self.part}/{self.split_digest}/{self.seed}/{self.item_nums.shape}/".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.item_nums).astype("<i8").tobytes()).hexdigest()

    @classmethod
    def draw(cls, split: Split, part: Part = "test", *, count: int = 19, seed: int = 0) -> Self:
        """By hash of seed, user_id and target, so equal on every machine and independent of the order of the cases.

        Raises:
            DataError: fewer than `count` items are left to a user.
        """
        cases = _cases_of(split, part)
        rows = np.empty((len(cases), count), dtype=np.int64)
        for row in range(len(cases)):
            user_id, target = split.users.ids[int(cases.user_nums[row])], int(cases.targets[row])
            taken = {target, *cases.inputs[row].tolist(), *cases.seen[row].tolist()}
            if split.n_items - len(taken) < count:
                raise DataError(
                    f"user_id {user_id!r} has {split.n_items - len(taken)} items left of {split.n_items}; {count} negatives are needed: ask for fewer"
                )
            drawn = _draws(f"{seed}/{user_id}/{split.items.ids[target]}", split.n_items)
            for column in range(count):
                rows[row, column] = item = next(item for item in drawn if item not in taken)
                taken.add(item)
        return cls(rows, part, split.digest, seed)

    def save(self, path: Path) -> None:
        """One safetensors file."""
        facts = {"format": FORMAT, "part": self.part, "split_digest": self.split_digest, "seed": str(self.seed), "digest": self.digest}
        write_bytes(path, safetensors.numpy.save({"item_nums": self.item_nums}, metadata=facts))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises ArtifactError: no such file, not a list of negatives, or changed after it was saved."""
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                facts = file.metadata() or {}
                found = cls(file.get_tensor("item_nums"), _part(facts["part"]), facts["split_digest"], int(facts["seed"]))
        except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
            raise ArtifactError(f"{path}: not a saved list of negatives: {error}") from None
        if facts.get("format") != FORMAT or facts.get("digest") != found.digest:
            raise ArtifactError(
                f"{path}: the list is not the one that was saved (sha256 {found.digest[:12]}, expected {facts.get('digest', '')[:12]}): draw it again"
            )
        return found


def evaluate_sampled(scorer: Scorer, split: Split, negatives: Negatives, *, ks: Sequence[int] = (1,), chunk: int | None = None) -> Evaluation:
    """Each target among its own negatives; ties count as in `evaluate`, so a constant scorer gets hit@1 = 1 / (1 + M).
    Items that are not scorable rank last, a target among them counts 0.

    Raises:
        SpaceMismatchError: the negatives, or the scorer, are of another split.
        NonFiniteError: as in `evaluate`.
    """
    model = model_name(scorer)
    if negatives.split_digest != split.digest:
        raise SpaceMismatchError(f"the negatives belong to split {negatives.split_digest[:12]!r}, this is split {split.digest[:12]!r}: draw them from it")
    refuse_other_items(scorer, split)
    cases = _cases_of(split, negatives.part)
    offered = np.concatenate([cases.targets[:, None], negatives.item_nums], axis=1)
    needed = np.zeros(split.n_items, dtype=np.bool_)
    needed[offered] = True
    item_nums = np.flatnonzero(needed & scorer.scorable_items()).astype(np.int64)
    column_of = np.full(split.n_items, -1, dtype=np.int64)
    column_of[item_nums] = np.arange(len(item_nums))
    better = np.full(len(cases), max(max(ks), offered.shape[1]), dtype=np.int64)
    tied = np.ones(len(cases), dtype=np.int64)
    for rows, scores in scored_chunks(scorer, cases, item_nums, chunk=chunk, users=split.users):
        columns = column_of[offered[rows]]
        drawn = np.where(columns >= 0, np.take_along_axis(scores, columns, axis=1), -np.inf)
        scored = columns[:, 0] >= 0
        better[rows[scored]] = (drawn > drawn[:, :1]).sum(axis=1)[scored]
        tied[rows[scored]] = (drawn == drawn[:, :1]).sum(axis=1)[scored]
    per_user = {f"{name}@{k}": metric(better, tied, k) for k in ks for name, metric in METRICS.items()}
    return Evaluation(model, cases.user_nums, cases.targets, per_user, offered.shape[1], better, tied)


def _cases_of(split: Split, part: Part) -> Cases:
    return {"validation": split.validation, "test": split.test, "cold": split.cold}[part]


def _part(name: str) -> Part:
    for part in get_args(Part):
        if part == name:
            return part  # type: ignore[no-any-return]
    raise ValueError(f"unknown part {name!r}")


def _draws(key: str, n_items: int) -> Iterator[int]:
    """Item_nums without end, each item equally likely (64 bits leave no bias that could be seen)."""
    block = 0
    while True:
        digest = hashlib.sha256(f"{key}/{block}".encode()).digest()
        yield from (int.from_bytes(digest[i : i + 8], "big") % n_items for i in range(0, 32, 8))
        block += 1
