"""`Recommender`: a published model in memory. The service, the notebooks and the command line all answer through it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recsys.data.catalog import ItemCatalog
from recsys.embeddings.content import of_texts
from recsys.errors import DataError, NonFiniteError, SpaceMismatchError, UnknownIdError
from recsys.ranking.index import ItemIndex
from recsys.ranking.topk import top_k
from recsys.serving.bundle import Bundle, Ranker, build_index, unit_rows
from recsys.serving.recommendations import HISTORY_USER, Recommendations
from recsys.types import UNKNOWN_NUM, FloatArray, IntArray, Queries

if TYPE_CHECKING:
    from recsys.embeddings.encoder import Encoder

USERS_PER_CHUNK = 256
UNKNOWN_ITEM = "unknown item"
NOT_SCORABLE = "not scorable"

EncoderLoader = Callable[[Mapping[str, Any]], "Encoder"]


def load_plain_encoder(config: Mapping[str, Any]) -> Encoder:
    """From the plain values of an `EncoderConfig`, as a bundle keeps them."""
    from recsys.embeddings.configs import parse_encoder
    from recsys.embeddings.loading import load_encoder

    return load_encoder(parse_encoder(dict(config), source="encoders.json of the bundle"))


def _template(config: Mapping[str, Any]) -> str:
    """How the encoder's items become texts; "" where it reads none."""
    from recsys.embeddings.configs import parse_encoder

    return str(config["template"]) if "template" in config else parse_encoder(dict(config), source="encoders.json of the bundle").template


@dataclass(frozen=True)
class _State:
    """All that `add_items` replaces, swapped as one reference: a request sees the old or the new, never a mixture."""

    ranker: Ranker
    catalog: ItemCatalog
    titles: tuple[str, ...]
    index: ItemIndex
    added: int


class Recommender:
    """Answers from one bundle. Every score comes from one function (`_scores`), whatever asks for it. Thread-safe."""

    def __init__(self, bundle: Bundle, *, load_encoder: EncoderLoader = load_plain_encoder) -> None:
        self._bundle = bundle
        self._load_encoder = load_encoder
        self._encoders: dict[str, Encoder] = {}
        self._writing = threading.Lock()
        self._state = _State(bundle.ranker, bundle.catalog, tuple(bundle.catalog.titles()), bundle.index, added=0)

    @property
    def name(self) -> str:
        return self._bundle.name

    @property
    def version(self) -> str:
        """Of the bundle; "+n" behind it when n items were added in memory."""
        added = self._state.added
        return f"{self._bundle.version}+{added}" if added else self._bundle.version

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
        state = self._state
        names, queries = self._queries(state, users, history)
        item_nums = np.flatnonzero(state.ranker.scorable_items())
        frames = [
            self._best(state, names[start : start + USERS_PER_CHUNK], queries.slice(start, start + USERS_PER_CHUNK), item_nums, k, exclude_seen)
            for start in range(0, len(names), USERS_PER_CHUNK)
        ]
        frame = pl.concat(frames)
        shown = frame["item_id"].unique().to_list()
        titles = dict(zip(shown, (state.titles[num] for num in state.catalog.items.nums(shown).tolist()), strict=True))
        return Recommendations(frame, titles, self.name, self.version, self.spaces)

    def score(self, user: str | None = None, items: Sequence[str] = (), *, history: Sequence[str] | None = None) -> pl.DataFrame:
        """Columns item_id, score (f32, null where there is none), reason (null where there is a score). One row for each
        of `items`, in their order; see `recommend` for user and history and for what is raised."""
        candidates = _checked_ids(items, "items")
        state = self._state
        _, queries = self._queries(state, None if user is None else [user], history)
        nums = state.catalog.items.nums_or_unknown(candidates)
        known = nums != UNKNOWN_NUM
        usable = known.copy()
        usable[known] = state.ranker.scorable_items()[nums[known]]
        scores = np.zeros(len(nums), dtype=np.float32)
        if usable.any():
            scores[usable] = self._scores(state, queries, nums[usable])[0]
        return pl.DataFrame(
            {
                "item_id": candidates,
                "score": [value if ok else None for value, ok in zip(scores.tolist(), usable.tolist(), strict=True)],
                "reason": [None if ok else NOT_SCORABLE if k else UNKNOWN_ITEM for ok, k in zip(usable.tolist(), known.tolist(), strict=True)],
            },
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
        scorable = state.ranker.scorable_items()
        if not scorable[num]:
            raise DataError(f"item {item!r} is not scorable: this model has no vector for it")
        vector = unit_rows(state.ranker.items()[num : num + 1])
        # Rows that must not be shown may stand before the k-th that may.
        wanted = min(len(scorable), k + 1 + int((~scorable).sum()))
        values, found = state.index.search(vector, wanted)
        kept = [(float(v), int(i)) for v, i in zip(values[0], found[0], strict=True) if i != num and i >= 0 and scorable[i]]
        best = sorted(kept, key=lambda pair: (-pair[0], pair[1]))[:k]
        ids = state.catalog.items.ids
        return pl.DataFrame(
            {
                "item_id": [ids[i] for _, i in best],
                "title": [state.titles[i] for _, i in best],
                "score": [v for v, _ in best],
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
        with self._writing:
            state = self._state
            new = self._new_rows(state, items)
            vectors = {signal: self._encode(signal, new) for signal in state.ranker.spaces}
            ranker = state.ranker.with_items(vectors)
            catalog = ItemCatalog(pl.concat([state.catalog.table, new.table]))
            index = build_index(ranker.items(), self._bundle.space_id, catalog.items)
            self._state = _State(ranker, catalog, tuple(catalog.titles()), index, state.added + len(new))

    def _new_rows(self, state: _State, items: Sequence[Mapping[str, Any]]) -> ItemCatalog:
        if not items:
            raise DataError("add_items got no items")
        schema = state.catalog.table.schema
        ids = _checked_ids([item.get("item_id") for item in items], "item_id of each new item")
        twice = sorted({i for i in ids if ids.count(i) > 1} | {i for i in ids if i in state.catalog.items})
        if twice:
            raise DataError(f"items that the model holds already or that are given twice: {', '.join(map(repr, twice[:5]))}")
        for item in items:
            unknown = set(item) - set(schema)
            if unknown:
                raise DataError(f"item {item['item_id']!r} has fields that the catalog does not have: {sorted(unknown)}; it has: {', '.join(schema)}")
        rows = [{name: _checked_field(item, name, kind) for name, kind in schema.items()} for item in items]
        return ItemCatalog(pl.DataFrame(rows, schema=schema))

    def _encode(self, signal: str, new: ItemCatalog) -> FloatArray:
        config = self._bundle.encoders.get(signal)
        if config is None:
            raise DataError(f"the bundle has no encoder for the signal {signal!r}; this model cannot take in new items")
        template = _template(config)
        if not template:
            raise DataError(f"the encoder of the signal {signal!r} looks at pictures alone; this model cannot take in new items, which come with texts")
        texts = new.texts(template)
        without = [i for i, text in zip(new.items.ids, texts, strict=True) if not text.strip()]
        if without:
            raise DataError(f"items without text: {', '.join(map(repr, without[:5]))}; the template {template!r} found none of its fields")
        encoder = self._encoders.get(signal)
        if encoder is None:
            encoder = self._load_encoder(config)
            expected = self._bundle.ranker.spaces[signal]
            if encoder.space.space_id != expected:
                raise SpaceMismatchError(f"signal {signal!r}: the ranker was trained on the space {expected}, the encoder here gives {encoder.space.space_id}")
            self._encoders[signal] = encoder
        return encoder.encode(of_texts(texts))

    def _user_num(self, user_id: str) -> int:
        try:
            return self._bundle.users.num(user_id, noun="user_id")
        except UnknownIdError as error:
            # The class builds its own message; the way out belongs into what the user reads.
            error.args = (f"{error}; for a user that the model never saw pass history=[item_id, ...]",)
            raise

    def _queries(self, state: _State, users: Sequence[str] | None, history: Sequence[str] | None) -> tuple[list[str], Queries]:
        names = None if users is None else _checked_ids(users, "users")
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
        items = state.catalog.items.nums(_checked_ids(history, "history"))
        if names is None:
            return [HISTORY_USER], Queries.of_history(items)
        return names, Queries(self._bundle.users.nums_or_unknown(names), (items,))

    def _scores(self, state: _State, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C): the only place where a score is made."""
        scores = state.ranker.score(queries, item_nums)
        if not np.isfinite(scores).all():
            raise NonFiniteError(
                f"model {self.name} {self.version} gave NaN or infinity for {len(queries)} requests; its weights are damaged, publish it again"
            )
        return scores

    def _best(self, state: _State, names: list[str], queries: Queries, item_nums: IntArray, k: int, exclude_seen: bool) -> pl.DataFrame:
        scores = self._scores(state, queries, item_nums)
        if exclude_seen:
            scores = scores.copy()
            for row, history in enumerate(queries.histories):
                scores[row, np.isin(item_nums, history)] = -np.inf
        values, columns = top_k(scores, k)
        kept = np.isfinite(values)
        shown, position = np.unique(item_nums[columns], return_inverse=True)
        shares = state.ranker.shares(queries, shown)
        rows = np.nonzero(kept)[0]
        places = position.reshape(columns.shape)[kept]
        ids = state.catalog.items.ids
        answer = {
            "user_id": [names[row] for row in rows.tolist()],
            "item_id": [ids[num] for num in shown[places].tolist()],
            "score": values[kept],
            "rank": kept.cumsum(axis=1)[kept].astype(np.int32),
            **{f"share_{signal}": share[rows, places] for signal, share in shares.items()},
        }
        kinds = {"user_id": pl.String, "item_id": pl.String, "rank": pl.Int32}
        return pl.DataFrame(answer, schema={name: kinds.get(name, pl.Float32) for name in answer})


def _checked_field(item: Mapping[str, Any], name: str, kind: pl.DataType) -> Any:
    """Columns of a catalog hold strings (or nothing) and lists of strings; polars would turn 5 into "5" in silence."""
    value = item.get(name)
    if isinstance(kind, pl.List):
        value = [] if value is None else value
        fits = isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
    else:
        fits = value is None or isinstance(value, str)
    if not fits:
        raise DataError(f"item {item['item_id']!r}: field {name!r} must be {'a list of strings' if isinstance(kind, pl.List) else 'a string'}, got {value!r}")
    return value


def _checked_ids(ids: Sequence[Any], what: str) -> list[str]:
    """One string instead of a list, or numbers instead of strings, are the two mistakes everyone makes once."""
    if isinstance(ids, str):
        raise DataError(f"{what}: expected a list of ids, got the single string {ids!r}; write [{ids!r}]")
    for one in ids:
        if not isinstance(one, str) or not one:
            raise DataError(f"{what}: ids are strings, got {one!r} ({type(one).__name__})")
    return list(ids)
