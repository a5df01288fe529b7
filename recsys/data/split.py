"""`Split`: made once, by one documented tie rule, hashed, and shared by every model.

Four protocols.

`leave_last_out`: the last event of a user is the test target, the last but one the validation target.

`held_out_items`: all interactions of a seeded share of the items leave training (they become cold); leave-last-out is
then made on what remains, and each user's last event with a held-out item is a cold case.

`held_out_targets`: leave-last-out, but a seeded share of the items that are some user's test target leave training, and the users
whose test target is among them are the cold cases; nobody's test target moves. Test and cold cases together are all users.

`global_temporal`: training ends at one moment for all, so that no model learns from a later day than the one it is asked
about. Leave-last-out does not keep this (Ji et al., TOIS 2023, arXiv 2010.11060; Gusak et al., RecSys 2025, arXiv
2507.16289, who call this the global temporal split with the first target). Training is everything before the validation
time; then come the validation window and, to the end, the test window. In each window a user's first event is the
target, and all its events before that one are the input, those of earlier windows among them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from safetensors.numpy import load_file, save_file

from recsys.artifacts.atomic import read_json, write_json
from recsys.config import Config, digest_of
from recsys.data.interactions import Interactions
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError, DataError, SpaceMismatchError
from recsys.types import BoolArray, IntArray, Queries

MIN_EVENTS = 3
"""Users with fewer events train the models and are not evaluated: one event each for input, validation and test."""


class SplitConfig(Config):
    protocol: Literal["leave_last_out", "held_out_items", "held_out_targets", "global_temporal"] = "leave_last_out"
    held_out_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the items with interactions that `held_out_items` removes from training; `held_out_targets`: of the test targets."""
    seed: int = 0
    """Chooses the held-out items; the other protocols have no randomness."""
    validation_from: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """`global_temporal`: share of all events that lie before the validation time; events of that very time are validation."""
    test_from: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """`global_temporal`: the same for the test time."""

    @model_validator(mode="after")
    def _windows_in_order(self) -> Self:
        if self.validation_from >= self.test_from:
            raise ValueError(f"validation_from ({self.validation_from}) must be below test_from ({self.test_from})")
        return self

    def hashed(self) -> dict[str, Any]:
        """What enters a split's hash. The times of `global_temporal` came later and stay out of the hashes of the others."""
        later = set() if self.protocol == "global_temporal" else {"validation_from", "test_from"}
        return self.model_dump(mode="json", exclude=later)


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
    """train: one row of item_nums a user, oldest first. held_out: bool (n_items,). cold: empty but for `held_out_*`.

    counts: what is not evaluated and why, and what a reader of the figures should know; see `_counts_of`.
    made_with: the config and the tie rule, as they entered the digest.
    """

    protocol: str
    users: Vocabulary
    items: Vocabulary
    train: Sequences
    validation: Cases
    test: Cases
    cold: Cases
    held_out: BoolArray
    digest: str
    counts: Mapping[str, int] = field(default_factory=dict)
    made_with: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_items(self) -> int:
        return len(self.items)

    def item_counts(self) -> IntArray:
        """int64 (n_items,): training interactions of each item."""
        return self.train.counts(self.n_items)

    def require_vocabularies(self, users: Vocabulary, items: Vocabulary, *, what: str) -> None:
        """Raises SpaceMismatchError unless `what` numbers users and items as this split does (it may hold more of them)."""
        for noun, mine, theirs in (("users", self.users, users), ("items", self.items, items)):
            if theirs.ids[: len(mine)] != mine.ids:
                raise SpaceMismatchError(
                    f"{what}: its {noun} ({len(theirs)} ids, {theirs.digest[:12]}) are not those of the split {self.digest[:12]} "
                    f"({len(mine)} ids, {mine.digest[:12]}); make both from one ingest"
                )

    def save(self, folder: Path) -> None:
        arrays = _arrays_of(self.train, self.validation, self.test, self.cold, self.held_out)
        save_file(arrays, folder / "split.safetensors")
        facts = {"protocol": self.protocol, "digest": self.digest, "counts": dict(self.counts), "made_with": dict(self.made_with)}
        write_json(folder / "split.json", facts | {"users": self.users.ids, "items": self.items.ids})

    @classmethod
    def load(cls, folder: Path) -> Split:
        """Raises:
        ArtifactError: files missing, or written by an older version.
        SpaceMismatchError: the arrays were not made with these users, items, config and tie rule.
        """
        try:
            facts, arrays = read_json(folder / "split.json"), load_file(folder / "split.safetensors")
        except FileNotFoundError as error:
            raise ArtifactError(f"{folder}: no saved split ({error.filename or error} is missing)") from None
        if "made_with" not in facts:
            raise ArtifactError(f"{folder}: a split of an older version, which did not record its config; make it again")
        users, items = Vocabulary(facts["users"]), Vocabulary(facts["items"])
        found = _digest(facts["made_with"], users, items, arrays)
        if found != facts["digest"]:
            raise SpaceMismatchError(
                f"{folder}: hash {found[:12]}, recorded is {facts['digest'][:12]}: the arrays belong to other users, items or settings "
                f"than the {len(users)} users and {len(items)} items beside them; make the split again"
            )

        def sequences(name: str) -> Sequences:
            return Sequences(arrays[f"{name}.offsets"], arrays[f"{name}.item_nums"])

        def cases(name: str) -> Cases:
            return Cases(arrays[f"{name}.user_nums"], sequences(f"{name}.inputs"), sequences(f"{name}.seen"), arrays[f"{name}.targets"])

        return cls(
            protocol=facts["protocol"],
            users=users,
            items=items,
            train=sequences("train"),
            validation=cases("validation"),
            test=cases("test"),
            cold=cases("cold"),
            held_out=arrays["held_out"].astype(np.bool_),
            digest=facts["digest"],
            counts=facts["counts"],
            made_with=facts["made_with"],
        )


def make_split(config: SplitConfig, interactions: Interactions) -> Split:
    """Raises DataError when nothing can be evaluated, or when `global_temporal` is asked of positions instead of times."""
    events = _Events(interactions.sequences())
    held_out = np.zeros(len(interactions.items), dtype=np.bool_)
    if config.protocol == "held_out_items":
        held_out = _choose_held_out(config, interactions, events.items)
    elif config.protocol == "held_out_targets":
        held_out = _choose_held_out(config, interactions, events.items[events.last()])
    if config.protocol == "global_temporal":
        train, validation, test, lost = _by_time(config, interactions, events)
        cold: Cases = events.cases(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), events.all)
    elif config.protocol == "held_out_targets":
        train, validation, test, cold, lost = _by_last_of_all(events, held_out)
    else:
        train, validation, test, cold, lost = _by_last(interactions, events, held_out)
    parts = train, validation, test, cold
    made_with = {"config": config.hashed(), "tie_rule": interactions.tie_rule}
    digest = _digest(made_with, interactions.users, interactions.items, _arrays_of(*parts, held_out))
    counts = {"users": len(interactions.users), **lost, **_counts_of(*parts, len(interactions.items))}
    return Split(config.protocol, interactions.users, interactions.items, *parts, held_out, digest, counts, made_with)


class _Events:
    """All events in the order of the tie rule, addressed by place 0..E-1.

    users: int64 (E,).  starts: int64 (U,), the place of each user's first event.  all: bool (E,), True.
    """

    def __init__(self, rows: Sequences) -> None:
        self.items, self.users, self.lengths = rows.item_nums, rows.row_nums(), rows.lengths
        self.starts, self.all = rows.offsets[:-1], np.ones(len(rows.item_nums), dtype=np.bool_)

    def last(self) -> IntArray:
        """int64: the place of the last event of each user with `MIN_EVENTS` or more."""
        return (self.starts + self.lengths - 1)[self.lengths >= MIN_EVENTS]

    def count(self, chosen: BoolArray) -> IntArray:
        """int64 (U,): each user's events among `chosen` bool (E,)."""
        return np.bincount(self.users[chosen], minlength=len(self.lengths)).astype(np.int64)

    def rows(self, chosen: BoolArray, of: IntArray | None = None) -> Sequences:
        """One row a user of `of` (ascending user_nums, None: all), its chosen events; nobody else may have chosen ones."""
        lengths = self.count(chosen) if of is None else self.count(chosen)[of]
        return Sequences(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), self.items[chosen])

    def before(self, user_nums: IntArray, places: IntArray) -> BoolArray:
        """bool (E,): the events of each of `user_nums` before its place."""
        until = np.zeros(len(self.lengths), dtype=np.int64)
        until[user_nums] = places
        return np.arange(len(self.items)) < until[self.users]

    def cases(self, user_nums: IntArray, places: IntArray, readable: BoolArray) -> Cases:
        """The event at each place is a target; seen is all before it, input what is readable of that."""
        before = self.before(user_nums, places)
        return Cases(user_nums, self.rows(before & readable, user_nums), self.rows(before, user_nums), self.items[places])


def _by_last(interactions: Interactions, events: _Events, held_out: BoolArray) -> tuple[Sequences, Cases, Cases, Cases, dict[str, int]]:
    warm = ~held_out[events.items]
    n_warm = events.count(warm)
    evaluated = np.flatnonzero(n_warm >= MIN_EVENTS)
    if not len(evaluated):
        raise DataError(f"no user has {MIN_EVENTS} events or more ({len(interactions)} events of {len(interactions.users)} users): nothing can be evaluated")
    warm_places, warm_ends = np.flatnonzero(warm), np.cumsum(n_warm)
    first_targets = warm_places[warm_ends[evaluated] - 2]
    validation = events.cases(evaluated, first_targets, warm)
    test = events.cases(evaluated, warm_places[warm_ends[evaluated] - 1], warm)
    # Users with too few events train with all of them.
    until = events.starts + events.lengths
    until[evaluated] = first_targets
    train = events.rows(warm & (np.arange(len(warm)) < until[events.users]))
    n_cold = events.count(~warm)
    with_cold = np.flatnonzero(n_cold)
    cold_targets = np.flatnonzero(~warm)[np.cumsum(n_cold)[with_cold] - 1]
    has_history = events.count(events.before(with_cold, cold_targets) & warm)[with_cold] > 0
    cold = events.cases(with_cold[has_history], cold_targets[has_history], warm)
    lost = {
        "users_without_events": int((events.lengths == 0).sum()),
        "users_with_too_few_events": int(((events.lengths > 0) & (n_warm < MIN_EVENTS)).sum()),
        "cold_users_without_history": int((~has_history).sum()),
    }
    return train, validation, test, cold, lost


def _by_last_of_all(events: _Events, held_out: BoolArray) -> tuple[Sequences, Cases, Cases, Cases, dict[str, int]]:
    """`held_out_targets`: the targets of leave-last-out, whether or not they are held out. Users who lose all that they trained with are left out."""
    warm = ~held_out[events.items]
    users, last = np.flatnonzero(events.lengths >= MIN_EVENTS), events.last()
    if not len(users):
        raise DataError(f"no user has {MIN_EVENTS} events or more: nothing can be evaluated")
    until = events.starts + events.lengths
    until[users] = last - 1
    train = events.rows(warm & (np.arange(len(warm)) < until[events.users]))

    def cases(places: IntArray, wanted: BoolArray) -> Cases:
        chosen = wanted & (train.lengths[users] > 0)
        return events.cases(users[chosen], places[chosen], warm)

    validation, test, cold = cases(last - 1, warm[last - 1]), cases(last, warm[last]), cases(last, ~warm[last])
    lost = {
        "users_without_events": int((events.lengths == 0).sum()),
        "users_with_too_few_events": int(((events.lengths > 0) & (events.lengths < MIN_EVENTS)).sum()),
        "validation_targets_held_out": int((~warm[last - 1]).sum()),
        "users_without_history": len(users) - len(test) - len(cold),
    }
    return train, validation, test, cold, lost


def _by_time(config: SplitConfig, interactions: Interactions, events: _Events) -> tuple[Sequences, Cases, Cases, dict[str, int]]:
    times = interactions.times
    _require_clock(interactions, events)
    in_order = np.sort(times)
    validation_time, test_time = (int(in_order[int(share * len(times))]) for share in (config.validation_from, config.test_from))
    lost = {"users_without_events": int((events.lengths == 0).sum())}
    windows = []
    for name, window in (("validation", (times >= validation_time) & (times < test_time)), ("test", times >= test_time)):
        # Events of a user are in the order of time: the window's first is the one after all earlier ones.
        with_event = np.flatnonzero(events.count(window))
        n_before = events.count(times < (validation_time if name == "validation" else test_time))[with_event]
        kept = with_event[n_before > 0]
        windows.append(events.cases(kept, events.starts[kept] + n_before[n_before > 0], events.all))
        lost |= {
            f"users_without_{name}_event": len(interactions.users) - len(with_event) - lost["users_without_events"],
            f"{name}_users_without_history": len(with_event) - len(kept),
        }
    for name, cases in zip(("validation", "test"), windows, strict=True):
        if not len(cases):
            raise DataError(
                f"no user has an event in the {name} window and one before it (validation from {validation_time}, test from {test_time}, "
                f"{len(times)} events): nothing can be evaluated; move validation_from and test_from"
            )
    return events.rows(times < validation_time), windows[0], windows[1], lost


def _require_clock(interactions: Interactions, events: _Events) -> None:
    first = interactions.times[events.starts[events.lengths > 0]]
    counted = np.arange(len(interactions)) - events.starts[events.users]
    if len(first) > 1 and (first == first[0]).all() and (interactions.times == first[0] + counted).all():
        raise DataError("global_temporal needs one clock for all users; these times are positions within each user's history: use leave_last_out")


def _counts_of(train: Sequences, validation: Cases, test: Cases, cold: Cases, n_items: int) -> dict[str, int]:
    """Of the training rows and of each kind of cases: how many, targets that training never saw (a miss for models by ID),
    targets that the user met before (repeats, never masked), and users that training never saw."""
    trained, lengths = train.counts(n_items), train.lengths
    pairs = np.sort(train.row_nums() * n_items + train.item_nums)
    counts = {
        "train_interactions": len(pairs),
        "train_repeats": int(np.count_nonzero(pairs[1:] == pairs[:-1])),
        "items_without_training": int((trained == 0).sum()),
    }
    for name, cases in (("validation", validation), ("test", test), ("cold", cold)):
        repeated = np.bincount(cases.seen.row_nums()[cases.seen.item_nums == np.repeat(cases.targets, cases.seen.lengths)], minlength=len(cases)) > 0
        counts |= {
            f"{name}_cases": len(cases),
            f"{name}_targets_unseen_in_training": int((trained[cases.targets] == 0).sum()),
            f"{name}_targets_repeated": int(repeated.sum()),
            f"{name}_users_unseen_in_training": int((lengths[cases.user_nums] == 0).sum()),
        }
    return counts


def _choose_held_out(config: SplitConfig, interactions: Interactions, among: IntArray) -> BoolArray:
    """Of the items in `among`, by hash of seed and item_id: independent of row order and equal on every machine."""
    keyed = sorted(np.unique(among).tolist(), key=lambda num: hashlib.sha256(f"{config.seed}/{interactions.items.ids[num]}".encode()).digest())
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


def _digest(made_with: Mapping[str, Any], users: Vocabulary, items: Vocabulary, arrays: dict[str, np.ndarray]) -> str:
    running = hashlib.sha256(digest_of([made_with["config"], made_with["tie_rule"], users.digest, items.digest]).encode())
    for name in sorted(arrays):
        running.update(name.encode() + np.ascontiguousarray(arrays[name]).astype("<i8").tobytes())
    return running.hexdigest()
