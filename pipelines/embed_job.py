"""One embedding job: which contents lack a vector (`survey`), computing them (`fill`), and the table of all items (`rows_of`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.executors.base import EncodedBatch, Executor
from pipelines.item_contents import ITEM, ROWS, ItemContents, Refusal
from recsys.embeddings.cache import EmbeddingCache
from recsys.embeddings.cache_index import halves_of
from recsys.embeddings.content import KEY_BYTES, Content, KeyArray, keys_of
from recsys.embeddings.quarantine import Quarantine
from recsys.errors import DataError, RetryableError
from recsys.types import FloatArray, IntArray

BATCH = 128
"""Contents at most that an encoder is given at once. A killed run loses the batches that were being computed, and half a second."""
FLUSH_SECONDS, FLUSH_ITEMS = 0.5, 8192
"""The batches of half a second, or so many contents, are stored together."""
BATCH_CHARACTERS = 200_000
"""A batch of long texts holds fewer."""
WINDOW = 64 * BATCH
"""Contents among which those of similar length are put together, so that batches hold little padding."""
WINDOW_BYTES = 64 * 2**20
NONE, STORED, NEW, SAME, REFUSED = range(5)
"""State of an item: no content; vector there; to be computed; content of another item to be computed; refused by the encoder earlier."""
ROUNDS = 5
"""The second computes texts whose pictures were refused; more are needed only where pictures change meanwhile."""
BREAKER = 256
"""Refused contents from which on their share is looked at."""

Progress = Callable[[int, int, str], None]


@dataclass
class Survey:
    """keys: uint8 (n, 32), on the disk.  state: uint8 (n,).  refusals: of this look at the items, by row."""

    keys: KeyArray
    state: npt.NDArray[np.uint8]
    refusals: dict[int, Refusal] = field(default_factory=dict)

    def count(self, *states: int) -> int:
        return int(np.isin(self.state, states).sum())


@dataclass
class Outcome:
    """What `fill` did. rate: items a second after the first batch, which waits for the model; 0 where there was one batch only."""

    computed: int = 0
    refused: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first: tuple[int, float] = (0, 0.0)

    @property
    def seen(self) -> int:
        return self.computed + self.refused

    def add(self, batch: EncodedBatch, seconds: float) -> None:
        self.computed += len(batch.keys)
        self.refused += len(batch.refused)
        self.tokens += batch.tokens
        self.seconds = seconds
        self.first = self.first if self.first[0] else (self.seen, seconds)

    @property
    def rate(self) -> float:
        done, after = self.first
        items = self.seen
        return (items - done) / (self.seconds - after) if items > done and self.seconds > after else 0.0


def survey(items: ItemContents, cache: EmbeddingCache, scratch: Path, progress: Progress) -> Survey:
    """The anti-join: no model is loaded. Memory: nine bytes an item and a chunk of contents."""
    count = len(items)
    keys: KeyArray = np.memmap(scratch / "keys.bin", np.uint8, "w+", shape=(count, KEY_BYTES)) if count else np.zeros((0, KEY_BYTES), dtype=np.uint8)
    found = Survey(keys, np.zeros(count, dtype=np.uint8))
    for rows in items.chunks(np.arange(count)):
        _look(items, cache, found, rows)
        progress(int(rows[-1]) + 1, count, "looking up")
    _mark_same(found)
    return found


def fill(items: ItemContents, cache: EmbeddingCache, found: Survey, executor: Executor, progress: Progress, *, max_refused_share: float) -> Outcome:
    """Compute what is NEW, store each batch at once; what the encoder refuses goes to quarantine. `found` is brought up to date.

    Raises:
        DataError: the encoder refuses more than `max_refused_share` of what it is given: then nothing of this job stays in quarantine.
    """
    outcome, started = Outcome(), time.monotonic()
    total = found.count(NEW)
    store = _Store(cache, items.quarantine)
    rows = np.flatnonzero(found.state == NEW)
    rounds = 0
    try:
        while len(rows):
            rounds += 1
            if rounds > ROUNDS:
                raise RetryableError(f"{len(rows):,} items of {items.config.name!r} changed while they were embedded, {ROUNDS} times; run again when they rest")
            for batch in executor.encode(items.config, cache.space.space_id, _batches(_contents(items, rows))):
                outcome.add(batch, time.monotonic() - started)
                store.add(batch)
                if outcome.refused >= BREAKER and outcome.refused > max_refused_share * outcome.seen:
                    store.forget_refused()
                    raise _too_many(outcome, batch, items, max_refused_share)
                progress(outcome.seen, max(total, outcome.seen), _note(outcome))
            store.flush()
            rows = _settle(items, cache, found)
    finally:
        store.flush()  # what was computed before an error or an interruption is computed
    if outcome.computed:
        cache.compact()
    return outcome


class _Store:
    """What was computed goes to the disk at once, where a batch takes a while; of a fast encoder's batches some together, for a file waits for the disk."""

    def __init__(self, cache: EmbeddingCache, quarantine: Quarantine) -> None:
        self._cache, self._quarantine = cache, quarantine
        self._waiting: list[EncodedBatch] = []
        self._refused: dict[bytes, str] = {}
        self._last = time.monotonic()

    def add(self, batch: EncodedBatch) -> None:
        self._waiting.append(batch)
        self._refused |= batch.refused
        if time.monotonic() - self._last >= FLUSH_SECONDS or sum(map(len, self._waiting)) >= FLUSH_ITEMS:
            self.flush()

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._cache.put_keys(np.concatenate([batch.keys for batch in waiting]), np.concatenate([batch.vectors for batch in waiting]))
            self._quarantine.add({key: reason for batch in waiting for key, reason in batch.refused.items()})
        self._last = time.monotonic()

    def forget_refused(self) -> None:
        """Nothing that was refused in this job stays in quarantine."""
        self.flush()
        self._quarantine.forget(np.frombuffer(b"".join(self._refused), dtype=np.uint8).reshape(-1, KEY_BYTES))


def rows_of(found: Survey, cache: EmbeddingCache, chunk: int = ROWS) -> Iterator[FloatArray]:
    """The table by pieces: float32 (<= chunk, dim); a zero row where an item has no vector."""
    for start in range(0, len(found.state), chunk):
        stored = found.state[start : start + chunk] == STORED
        block = np.zeros((len(stored), cache.space.dim), dtype=np.float32)
        if stored.any():
            block[stored] = cache.read(np.asarray(found.keys[start : start + chunk])[stored])
        yield block


def _look(items: ItemContents, cache: EmbeddingCache, found: Survey, places: IntArray) -> None:
    contents, refusals = items.of(places)
    there = np.array([content is not None for content in contents], dtype=np.bool_)
    keys = keys_of(content for content in contents if content is not None)
    stored, refused = cache.has(keys), items.quarantine.has(keys)
    found.keys[places[there]] = keys
    found.state[places[~there]] = NONE
    found.state[places[there]] = np.where(stored, STORED, np.where(refused, REFUSED, NEW))
    for refusal in refusals:
        found.refusals[refusal.row] = refusal
    for place, key in zip(places[there][~stored & refused].tolist(), keys[~stored & refused], strict=True):
        earlier = found.refusals.get(place)
        reason = items.quarantine.reason(key.tobytes()) or ""
        found.refusals[place] = Refusal(place, ITEM, f"{reason}; {earlier.reason}" if earlier else reason)


def _settle(items: ItemContents, cache: EmbeddingCache, found: Survey) -> IntArray:
    """What was new is stored now, or looked at once more: a picture that was refused leaves a text behind, which is a content of its own.

    int64: rows whose content is new again.
    """
    left = []
    pending = np.flatnonzero(np.isin(found.state, (NEW, SAME)))
    for start in range(0, len(pending), ROWS):
        rows = pending[start : start + ROWS]
        stored = cache.has(np.asarray(found.keys[rows]))
        found.state[rows[stored]] = STORED
        left.append(rows[~stored])
    rows = np.concatenate(left) if left else pending
    for row in found.refusals.keys() & set(rows.tolist()):
        del found.refusals[row]
    for chunk in items.chunks(rows):
        _look(items, cache, found, chunk)
    _mark_same(found)
    return np.flatnonzero(found.state == NEW)


def _mark_same(found: Survey) -> None:
    """Of new contents that are equal the first item's is computed."""
    new = np.flatnonzero(np.isin(found.state, (NEW, SAME)))
    if len(new):
        firsts, _ = halves_of(np.asarray(found.keys[new]))
        _, first = np.unique(firsts, return_index=True)
        found.state[new] = SAME
        found.state[new[first]] = NEW


def _contents(items: ItemContents, rows: IntArray) -> Iterator[Content]:
    for chunk in items.chunks(rows):
        contents, _ = items.of(chunk)
        yield from (content for content in contents if content is not None)


def _batches(contents: Iterator[Content]) -> Iterator[list[Content]]:
    window: list[Content] = []
    size = 0
    for content in contents:
        window.append(content)
        size += _weight(content)
        if len(window) >= WINDOW or size >= WINDOW_BYTES:
            yield from _cut(window)
            window, size = [], 0
    yield from _cut(window)


def _cut(window: list[Content]) -> Iterator[list[Content]]:
    """By length of the text, longest first, so that what does not fit into memory shows at once."""
    batch: list[Content] = []
    characters = 0
    for content in sorted(window, key=lambda content: -len(content.text)):
        if batch and (len(batch) == BATCH or characters + len(content.text) > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(content)
        characters += len(content.text)
    if batch:
        yield batch


def _weight(content: Content) -> int:
    return len(content.text) + len(content.image or b"")


def _too_many(outcome: Outcome, batch: EncodedBatch, items: ItemContents, limit: float) -> DataError:
    reason = next(iter(batch.refused.values()), "")
    return DataError(
        f"encoder {items.config.name!r} refuses {outcome.refused:,} of {outcome.seen:,} contents, so the fault is hardly theirs; the last reason: {reason}. "
        f"Where they are really so bad, raise limits.max_refused_share ({limit:g})"
    )


def _note(outcome: Outcome) -> str:
    parts = [f"{outcome.tokens / outcome.seconds:,.0f} tokens/s"] if outcome.tokens and outcome.seconds else []
    return " · ".join([*parts, *([f"[yellow]{outcome.refused:,} refused[/]"] if outcome.refused else [])])
