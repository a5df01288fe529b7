"""`Recommender`: a published model in memory. The service, the notebooks and the command line all answer through it."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import polars as pl

from recsys.data.catalog import ItemCatalog
from recsys.errors import DataError, NonFiniteError, UnknownIdError
from recsys.ranking.topk import top_k
from recsys.serving.bundle import Bundle, unit_rows
from recsys.serving.item_encoder import EncoderLoader, InProcessEncoder, ItemEncoder, load_plain_encoder
from recsys.serving.model_state import ModelState
from recsys.serving.new_items import checked_ids, encode_rows, new_rows
from recsys.serving.recommendations import HISTORY_USER, Recommendations
from recsys.types import UNKNOWN_NUM, BoolArray, FloatArray, IntArray, Queries

USERS_PER_CHUNK = 256
UNKNOWN_ITEM = "unknown item"
NOT_SCORABLE = "not scorable"


class Recommender:
    """Answers from one bundle. Every score comes from one function (`scores`), whatever asks for it. Thread-safe."""

    def __init__(self, bundle: Bundle, *, load_encoder: EncoderLoader = load_plain_encoder, item_encoder: ItemEncoder | None = None) -> None:
        self._bundle = bundle
        self._item_encoder = item_encoder or InProcessEncoder(load_encoder)
        self._writing = threading.Lock()
        self._state = ModelState.of_bundle(bundle)

    def pinned(self) -> Self:
        """The model as it is now, in which items that are added later do not show: what one request answers from."""
        return copy.copy(self)

    @property
    def name(self) -> str:
        return self._bundle.name

    @property
    def version(self) -> str:
        """Of the bundle; "+n" behind it when n items were added in memory."""
        added = self._state.added
        return f"{self._bundle.version}+{added}" if added else self._bundle.version

    @property
    def bundle(self) -> Bundle:
        return self._bundle

    @property
    def state(self) -> ModelState:
        return self._state

    @property
    def spaces(self) -> dict[str, str]:
        """Signal -> id of the embedding space that the ranker was trained on; "fused" is the space of its item vectors."""
        return {**self._bundle.ranker.spaces, "fused": self._bundle.space_id}

    @property
    def facts(self) -> Mapping[str, Any]:
        return self._bundle.facts

    @property
    def catalog(self) -> ItemCatalog:
        return self._state.catalog

    @property
    def user_ids(self) -> tuple[str, ...]:
        return self._bundle.users.ids

    def __repr__(self) -> str:
        counts = f"{len(self.catalog)} items, {len(self._bundle.users)} users"
        return f"Recommender({self.name!r}, version {self.version!r}, {counts}, signals {sorted(self._bundle.ranker.spaces)})"

    def user_history(self, user_id: str) -> list[str]:
        """item_ids known at publishing time, oldest first. Raises UnknownIdError."""
        return self._bundle.catalog.items.ids_of(self._bundle.histories[self._user_num(user_id)])

    def unknown_items(self, item_ids: Sequence[str]) -> list[str]:
        """Those of `item_ids` that the model does not know, in order, each once."""
        items = self._state.catalog.items
        return [i for i in dict.fromkeys(item_ids) if i not in items]

    def recommend(
        self,
        users: Sequence[str] | None = None,
        *,
        history: Sequence[str] | None = None,
        k: int = 10,
        exclude_seen: bool = True,
    ) -> Recommendations:
        """The k best items of each user, or of one history (item_ids, oldest first), or of one user whose history is given.

        Order: score descending, then item_num ascending. Items that cannot be scored are never recommended; a user
        with fewer than k items left gets fewer rows.

        Raises:
            UnknownIdError: a user that the bundle does not hold (without a history), or an unknown item in the history.
            DataError: neither users nor history, or k < 1.
        """
        if k < 1:
            raise DataError(f"k must be 1 or more, got {k}")
        model = self.pinned()
        names, queries = model._queries(users, history)
        chunks = [slice(start, start + USERS_PER_CHUNK) for start in range(0, len(names), USERS_PER_CHUNK)]
        frame = pl.concat([model._frame(names[rows], queries.slice(rows.start, rows.stop), k, exclude_seen) for rows in chunks])
        shown = frame["item_id"].unique().to_list()
        titles = dict(zip(shown, (model.state.titles[num] for num in model.catalog.items.nums(shown).tolist()), strict=True))
        return Recommendations(frame, titles, model.name, model.version, model.spaces)

    def score(self, user: str | None = None, items: Sequence[str] = (), *, history: Sequence[str] | None = None) -> pl.DataFrame:
        """Columns item_id, score (f32, null where there is none), reason (null where there is a score). One row for each
        of `items`, in their order; see `recommend` for user and history and for what is raised."""
        model, candidates = self.pinned(), checked_ids(items, "items")
        _, queries = model._queries(None if user is None else [user], history)
        nums, usable, reasons = model.candidates(candidates)
        scores = np.zeros(len(nums), dtype=np.float32)
        if usable.any():
            scores[usable] = model.scores(model.represent(queries), nums[usable])[0]
        return pl.DataFrame(
            {"item_id": candidates, "score": [value if ok else None for value, ok in zip(scores.tolist(), usable.tolist(), strict=True)], "reason": reasons},
            schema={"item_id": pl.String, "score": pl.Float32, "reason": pl.String},
        )

    def similar(self, item: str, k: int = 10) -> pl.DataFrame:
        """The k items nearest by cosine of the fused item vectors: item_id, title, score, rank. Never the item itself.

        Raises:
            UnknownIdError: the model does not know the item.
            DataError: k < 1, or the model has no vector for the item.
        """
        if k < 1:
            raise DataError(f"k must be 1 or more, got {k}")
        state = self._state
        num = state.catalog.items.num(item)
        if not state.scorable[num]:
            raise DataError(f"item {item!r} is not scorable: this model has no vector for it")
        best = state.nearest(num, k)
        ids = state.catalog.items.ids
        return pl.DataFrame(
            {
                "item_id": [ids[i] for i, _ in best],
                "title": [state.titles[i] for i, _ in best],
                "score": [v for _, v in best],
                "rank": list(range(1, len(best) + 1)),
            },
            schema={"item_id": pl.String, "title": pl.String, "score": pl.Float32, "rank": pl.Int32},
        )

    def add_items(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Take in new items that have text and no interactions: {"item_id": ..., "title": ..., ...}. All or none.

        Raises:
            DataError: an id given twice or held already, a field that the catalog does not have, no text, or a signal
                for which the bundle has no encoder.
            SpaceMismatchError: an encoder on this machine gives another space than the ranker was trained on.
        """
        new = new_rows(self._state.catalog, items)
        self.add_encoded(items, {signal: self.encode(signal, new) for signal in self._bundle.ranker.spaces})

    def encode(self, signal: str, new: ItemCatalog) -> FloatArray:
        """float32 (m, d): the signal's vectors of new rows of the catalogue. See `add_items` for what is raised."""
        return encode_rows(self._bundle, self._item_encoder, signal, new)

    def add_encoded(self, items: Sequence[Mapping[str, Any]], vectors: Mapping[str, FloatArray]) -> None:
        """`add_items` with vectors that were made before: signal -> float32 (m, d), rows aligned with `items`."""
        with self._writing:
            self._state = self._state.with_items(new_rows(self._state.catalog, items), vectors)

    def history_nums(self, item_ids: Sequence[str]) -> IntArray:
        """int64: the known ones of `item_ids`, in their order."""
        nums = self._state.catalog.items.nums_or_unknown(item_ids)
        known: IntArray = nums[nums != UNKNOWN_NUM]
        return known

    def candidates(self, item_ids: Sequence[str]) -> tuple[IntArray, BoolArray, list[str | None]]:
        """item_nums (C,), which of them can be scored (C,), and for the others the reason."""
        state = self._state
        nums = state.catalog.items.nums_or_unknown(item_ids)
        known = nums != UNKNOWN_NUM
        # The number of an unknown item is -1: it looks up the last row, and is then left out.
        usable = known & state.scorable[nums]
        if usable.all():
            return nums, usable, [None] * len(nums)
        return nums, usable, [None if ok else NOT_SCORABLE if k else UNKNOWN_ITEM for ok, k in zip(usable.tolist(), known.tolist(), strict=True)]

    def represent(self, queries: Queries) -> FloatArray:
        """float32 (B, d): user states, for `scores` of this very model.

        Raises:
            NonFiniteError: the model is damaged.
        """
        return self._finite(self._state.ranker.represent(queries), "states")

    def scores(self, states: FloatArray, item_nums: IntArray | None = None) -> FloatArray:
        """float32 (B, C), of the whole catalogue without `item_nums`: the only place where a score is made. Items that are not scorable get -inf.

        Raises:
            NonFiniteError: the model is damaged.
        """
        state = self._state
        items = state.ranker.items()
        scores = np.asarray(states @ (items if item_nums is None else items[item_nums]).T, dtype=np.float32)
        # The whole catalogue is scored in place and masked: to gather all but a few rows of a large one costs more than the product.
        hidden = state.unscorable if item_nums is None else np.flatnonzero(~state.scorable[item_nums])
        if len(hidden):
            scores[:, hidden] = 0
        self._finite(scores, "scores")
        if len(hidden):
            scores[:, hidden] = -np.inf
        return scores

    def best(self, scores: FloatArray, k: int, hidden: Sequence[IntArray] = (), allowed: BoolArray | None = None) -> tuple[FloatArray, IntArray, BoolArray]:
        """Of scores (B, n) of the whole catalogue: values, item_nums and whether the place is filled, each (B, k), best first.

        hidden: for each row the item_nums that it must not hold.  allowed: bool (n,).  `scores` is written to.
        """
        for row, nums in enumerate(hidden):
            scores[row, nums] = -np.inf
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        values, nums = top_k(scores, k)
        return values, nums, np.isfinite(values)

    def shares(self, states: FloatArray, item_nums: IntArray) -> Mapping[str, FloatArray]:
        """signal -> float32 (B, C); they add up to the score."""
        return self._state.ranker.shares_of(states, item_nums)

    def likeness(self, item_nums: IntArray, others: IntArray) -> FloatArray:
        """float32 (C, H): cosine of the fused vectors."""
        items = self._state.ranker.items()
        return np.asarray(unit_rows(items[item_nums]) @ unit_rows(items[others]).T, dtype=np.float32)

    def _user_num(self, user_id: str) -> int:
        try:
            return self._bundle.users.num(user_id, noun="user_id")
        except UnknownIdError as error:
            # The class builds its own message; the way out belongs into what the user reads.
            error.args = (f"{error}; for a user that the model never saw pass history=[item_id, ...]",)
            raise

    def _queries(self, users: Sequence[str] | None, history: Sequence[str] | None) -> tuple[list[str], Queries]:
        names = None if users is None else checked_ids(users, "users")
        if history is None:
            if not names:
                raise DataError("pass users=[user_id, ...] or history=[item_id, ...]")
            unknown = [u for u in names if u not in self._bundle.users]
            if len(unknown) > 1:
                raise UnknownIdError("user_id", unknown, len(self._bundle.users))
            nums = [self._user_num(u) for u in names]
            return names, Queries(np.array(nums, dtype=np.int64), [self._bundle.histories[n] for n in nums])
        if names is not None and len(names) != 1:
            raise DataError(f"a history belongs to one user, got {len(names)} users")
        items = self._state.catalog.items.nums(checked_ids(history, "history"))
        if names is None:
            return [HISTORY_USER], Queries.of_history(items)
        return names, Queries(self._bundle.users.nums_or_unknown(names), (items,))

    def _finite(self, values: FloatArray, what: str) -> FloatArray:
        if not np.isfinite(values).all():
            raise NonFiniteError(f"model {self.name} {self.version} gave NaN or infinity among its {what}; its weights are damaged, publish it again")
        return values

    def _frame(self, names: list[str], queries: Queries, k: int, exclude_seen: bool) -> pl.DataFrame:
        states = self.represent(queries)
        values, nums, kept = self.best(self.scores(states), k, queries.histories if exclude_seen else ())
        shown, position = np.unique(nums, return_inverse=True)
        shares = self.shares(states, shown)
        rows = np.nonzero(kept)[0]
        places = position.reshape(nums.shape)[kept]
        ids = self.catalog.items.ids
        answer = {
            "user_id": [names[row] for row in rows.tolist()],
            "item_id": [ids[num] for num in shown[places].tolist()],
            "score": values[kept],
            "rank": kept.cumsum(axis=1)[kept].astype(np.int32),
            **{f"share_{signal}": share[rows, places] for signal, share in shares.items()},
        }
        kinds = {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int32}
        return pl.DataFrame(answer, schema={name: kinds.get(name, pl.Float32) for name in answer})
