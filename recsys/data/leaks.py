"""`find_leaks`: does what a model or a stage was fitted on hold anything that it must not know?"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import scipy.sparse as sp

from recsys.data.sequences import Sequences
from recsys.data.split import Cases, Split
from recsys.errors import LeakError, SpaceMismatchError
from recsys.types import UNKNOWN_NUM, BoolArray, IntArray

_EDGES_AT_ONCE = 50_000


@dataclass(frozen=True)
class LeakReport:
    """Counts, all 0 where nothing leaked.

    An excess pair is a (user, item) that was trained on more often than `split.train` has it, or whose item is held out: a
    repeat, a pair both in training and a target, is none by itself.
    """

    validation_pairs: int
    """Excess pairs that are validation targets."""
    test_pairs: int
    """Excess pairs that are test targets."""
    cold_pairs: int
    """Excess pairs that are cold targets."""
    held_out_pairs: int
    """Excess pairs with a held-out item, targets among them."""
    other_pairs: int
    """All other excess pairs: events of a later time, or of no split at all."""
    edges_without_support: int
    """Item-item edges whose two items no user has both in training."""
    edges_of_held_out_items: int
    """Item-item edges that touch a held-out item."""
    inputs_beyond_the_past: int
    """Cases whose input holds more than the events before their target, such as the target itself at its end."""
    examples: tuple[str, ...] = ()
    """The first few, in outside ids."""

    @property
    def leaked(self) -> bool:
        return any(self.found().values())

    def found(self) -> dict[str, int]:
        """The counts that are not 0."""
        counts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "examples"}
        return {name: count for name, count in counts.items() if count}


def find_leaks(split: Split, trained: Sequences | tuple[IntArray, IntArray], *, item_edges: IntArray | None = None) -> LeakReport:
    """trained: the interactions that were fitted on, as rows by user_num or as (user_nums, item_nums) int64 (E,) each; each
        interaction as often as it was taken for an event (not once an epoch).
    item_edges: int64 (M, 2) item_num of edges that were made of interactions, such as co-occurrences.

    The cases of the split themselves are judged too. A pair may count under several heads.

    Raises:
        SpaceMismatchError: numbers that are not of this split's vocabularies.
    """
    user_nums, item_nums = (trained.row_nums(), trained.item_nums) if isinstance(trained, Sequences) else trained
    _require_inside(split, user_nums, item_nums, item_edges)
    pairs, times = np.unique(user_nums * split.n_items + item_nums, return_counts=True)
    honest = _count_in(_pairs_of(split.train.row_nums(), split.train.item_nums, split), pairs)
    excess = pairs[(times > honest) | split.held_out[pairs % split.n_items]]
    targets = {name: np.isin(excess, _pairs_of(cases.user_nums, cases.targets, split)) for name, cases in _kinds(split)}
    held_out = split.held_out[excess % split.n_items]
    other = ~(targets["validation"] | targets["test"] | targets["cold"] | held_out)
    unsupported, touching = _judge_edges(split, item_edges) if item_edges is not None else (np.zeros(0, dtype=np.bool_),) * 2
    wrong = {name: _beyond_the_past(split, name, cases) for name, cases in _kinds(split)}
    examples = [f"user {split.users.ids[pair // split.n_items]!r} with item {split.items.ids[pair % split.n_items]!r}" for pair in excess[:3].tolist()]
    if item_edges is not None:
        bad = item_edges[unsupported | touching][:3].tolist()
        examples += [f"edge {split.items.ids[a]!r} - {split.items.ids[b]!r}" for a, b in bad]
    for name, cases in _kinds(split):
        examples += [f"{name} input of user {split.users.ids[num]!r}" for num in cases.user_nums[wrong[name]][:3].tolist()]
    return LeakReport(
        validation_pairs=int(targets["validation"].sum()),
        test_pairs=int(targets["test"].sum()),
        cold_pairs=int(targets["cold"].sum()),
        held_out_pairs=int(held_out.sum()),
        other_pairs=int(other.sum()),
        edges_without_support=int(unsupported.sum()),
        edges_of_held_out_items=int(touching.sum()),
        inputs_beyond_the_past=sum(int(rows.sum()) for rows in wrong.values()),
        examples=tuple(examples),
    )


def assert_no_leak(split: Split, trained: Sequences | tuple[IntArray, IntArray], *, item_edges: IntArray | None = None, what: str = "training") -> None:
    """Raises LeakError that names `what`, the counts and the first cases; arguments as in `find_leaks`."""
    report = find_leaks(split, trained, item_edges=item_edges)
    if report.leaked:
        raise LeakError(f"{what} knows what it must not know: {_in_words(report)}. Fit on split.train alone")


def assert_sound_split(split: Split, *, what: str = "the split") -> None:
    """For whoever makes a split, before anything is fitted: raises LeakError when a training row or an input holds a target
    or what comes after it, or a held-out item. Cheap: half a second for 100,000 users."""
    report = find_leaks(split, split.train)
    if report.leaked:
        raise LeakError(
            f"{what} ({split.protocol}, {split.digest[:12]}) does not keep its targets apart: {_in_words(report)}. Nothing was fitted; make it again"
        )


def _in_words(report: LeakReport) -> str:
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report.found().items())
    return f"{counts}; first: {'; '.join(report.examples)}"


def _kinds(split: Split) -> tuple[tuple[str, Cases], ...]:
    return ("validation", split.validation), ("test", split.test), ("cold", split.cold)


def _pairs_of(user_nums: IntArray, item_nums: IntArray, split: Split) -> IntArray:
    return user_nums * split.n_items + item_nums


def _count_in(known: IntArray, pairs: IntArray) -> IntArray:
    """int64, how often each of `pairs` occurs in `known`."""
    in_order = np.sort(known)
    counts: IntArray = (np.searchsorted(in_order, pairs, side="right") - np.searchsorted(in_order, pairs, side="left")).astype(np.int64)
    return counts


def _judge_edges(split: Split, edges: IntArray) -> tuple[BoolArray, BoolArray]:
    """bool (M,) each: no training user has both items; a held-out item is touched. A self-loop needs no user."""
    rows = split.train
    matrix = sp.csc_array((np.ones(len(rows.item_nums), dtype=np.float32), (rows.row_nums(), rows.item_nums)), shape=(len(rows), split.n_items))
    supported = np.zeros(len(edges), dtype=np.bool_)
    for start in range(0, len(edges), _EDGES_AT_ONCE):
        left, right = edges[start : start + _EDGES_AT_ONCE].T
        together = matrix[:, left].multiply(matrix[:, right])
        supported[start : start + _EDGES_AT_ONCE] = np.asarray(together.sum(axis=0)).ravel() > 0
    supported |= edges[:, 0] == edges[:, 1]
    return ~supported, np.asarray(split.held_out[edges].any(axis=1), dtype=np.bool_)


def _beyond_the_past(split: Split, name: str, cases: Cases) -> BoolArray:
    """bool (N,). The past of a case, as far as the split tells it: for validation the training row and no more; for test
    the training row and the validation target next, with nothing after them but in `global_temporal`; for cold cases no
    held-out item."""
    given, train, users = cases.inputs, split.train, cases.user_nums
    if name == "cold":
        return np.bincount(given.row_nums()[split.held_out[given.item_nums]], minlength=len(cases)) > 0
    # The item that follows the training row, where the split tells one.
    following = np.full(len(split.users), UNKNOWN_NUM, dtype=np.int64)
    if name == "test":
        following[split.validation.user_nums] = split.validation.targets
    trained, expected = train.lengths[users], following[users]
    past = trained + (expected != UNKNOWN_NUM)
    wrong: BoolArray = given.lengths < past
    if not (name == "test" and split.protocol == "global_temporal"):
        wrong |= given.lengths > past
    long_enough = np.flatnonzero(~wrong)
    lengths = trained[long_enough]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ours = given.item_nums[np.repeat(given.offsets[long_enough], lengths) + within]
    theirs = train.item_nums[np.repeat(train.offsets[users[long_enough]], lengths) + within]
    wrong[np.repeat(long_enough, lengths)[ours != theirs]] = True
    told = long_enough[expected[long_enough] != UNKNOWN_NUM]
    wrong[told] |= given.item_nums[given.offsets[told] + trained[told]] != expected[told]
    return wrong


def _require_inside(split: Split, user_nums: IntArray, item_nums: IntArray, edges: IntArray | None) -> None:
    if len(user_nums) != len(item_nums):
        raise ValueError(f"{len(user_nums)} users but {len(item_nums)} items")
    if edges is not None and (edges.ndim != 2 or edges.shape[1] != 2):
        raise ValueError(f"item_edges of shape (M, 2) are needed, got {edges.shape}")
    for noun, nums, known in (
        ("user_num", user_nums, len(split.users)),
        ("item_num", item_nums, split.n_items),
        ("item_num", np.zeros(0, dtype=np.int64) if edges is None else edges.ravel(), split.n_items),
    ):
        if len(nums) and (nums.min() < 0 or nums.max() >= known):
            raise SpaceMismatchError(f"{noun} {int(nums.min())} to {int(nums.max())} came; the split {split.digest[:12]} numbers 0 to {known - 1}")
