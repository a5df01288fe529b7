"""The stored list of users that A-LLMRec trains and is measured on, and the split cut down to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from pipelines.a_llmrec_config import AlignmentFile
from recsys.artifacts.atomic import read_json, write_json
from recsys.config import digest_of
from recsys.data.sequences import Sequences
from recsys.data.split import Cases, Split
from recsys.errors import ConfigError
from recsys.types import IntArray

FILE = "a_llmrec_users.json"


@dataclass(frozen=True)
class UserList:
    """user_ids. train: of stage 2.  validation, test, cold: of the cases of that kind."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    cold: tuple[str, ...]

    @property
    def digest(self) -> str:
        return digest_of([self.train, self.validation, self.test, self.cold])

    @classmethod
    def stored(cls, path: Path, file: AlignmentFile, split: Split) -> Self:
        """That of `split` in the JSON file at `path`, drawn and added where there is none: by hash of the user_id, so that it is equal everywhere.

        Raises:
            ConfigError: the file asks for other numbers of users than the list has.
        """
        key, lists = split.digest[:16], read_json(path) if path.is_file() else {}
        wanted = cls._drawn(file, split)
        if key not in lists:
            found = {"protocol": split.protocol, **{name: list(ids) for name, ids in vars(wanted).items()}}
            write_json(path, {**lists, key: found})
            return wanted
        found_list = cls(**{name: tuple(lists[key][name]) for name in ("train", "validation", "test", "cold")})
        if any(len(one) != len(other) for one, other in zip(vars(found_list).values(), vars(wanted).values(), strict=True)):
            raise ConfigError(
                f"{path}: the list of {split.protocol} has other numbers of users than the config asks for; delete its entry {key} to draw it again"
            )
        return found_list

    @classmethod
    def _drawn(cls, file: AlignmentFile, split: Split) -> Self:
        def first(purpose: str, among: IntArray, count: int) -> tuple[str, ...]:
            ids = [split.users.ids[num] for num in np.unique(among).tolist()]
            return tuple(sorted(ids, key=lambda user_id: hashlib.sha256(f"{purpose}/{user_id}".encode()).digest())[:count])

        return cls(
            train=first("train", np.flatnonzero(split.train.lengths > 1), file.train_users),
            validation=first("validation", split.validation.user_nums, file.validation_users),
            test=first("test", split.test.user_nums, file.test_users),
            cold=first("test", split.cold.user_nums, file.test_users),
        )


def cut_down(split: Split, users: UserList) -> Split:
    """The same split with the cases of the list alone. Its training, and so its hash, is untouched."""
    kinds = {kind: _of_users(getattr(split, kind), nums_of(split, getattr(users, kind))) for kind in ("validation", "test", "cold")}
    return replace(split, **kinds)


def trained_on_few(split: Split, users: UserList, count: int) -> Split:
    """A split of its own: only the first `count` training users of the list have training histories and validation cases."""
    chosen = users.train[:count]
    few = nums_of(split, chosen)
    kept = np.isin(np.arange(len(split.train)), few)
    nothing = np.zeros(0, dtype=np.int64)
    rows = [row if keep else nothing for row, keep in zip(split.train, kept.tolist(), strict=True)]
    digest = digest_of([split.digest, "trained on few", list(chosen)])
    return replace(split, train=Sequences.of_rows(rows), validation=_of_users(split.validation, few), digest=digest)


def nums_of(split: Split, ids: tuple[str, ...]) -> IntArray:
    """int64, ascending."""
    return np.array(sorted(split.users.num(user_id, noun="user_id") for user_id in ids), dtype=np.int64)


def _of_users(cases: Cases, user_nums: IntArray) -> Cases:
    rows = np.flatnonzero(np.isin(cases.user_nums, user_nums)).tolist()
    return Cases.of_rows([(int(cases.user_nums[row]), cases.inputs[row], cases.seen[row], int(cases.targets[row])) for row in rows])
