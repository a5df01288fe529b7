"""`Overlay`: items that came after the model was published, kept through restarts and brought into every model that comes to serve."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recsys.errors import ArtifactError, DataError, RetryableError
from recsys.serving.item_journal import Item, ItemJournal
from recsys.serving.live import LiveModel
from recsys.serving.metrics import Metrics
from recsys.serving.new_items import new_rows
from recsys.serving.recommender import Recommender
from recsys.types import FloatArray

_log = logging.getLogger(__name__)


class Overlay:
    """limit: items that are kept at most. Thread-safe."""

    def __init__(self, live: LiveModel, journal: ItemJournal, metrics: Metrics, limit: int) -> None:
        self._live, self._journal, self._metrics, self._limit = live, journal, metrics, limit
        self._left_out: frozenset[str] = frozenset()

    def start(self) -> None:
        """Bring what is held into the first model. An encoder that fails now is asked again by `follow`."""
        try:
            self.bring_into(self._live.current)
        except RetryableError as error:
            _log.error("new items are not scorable yet: %s", error)
        self.show()

    def add(self, items: Sequence[Item]) -> tuple[list[str], list[str]]:
        """Take in new items, all or none: (item_ids added, item_ids that were held with the same fields). Stored before they are scorable,
        scorable when this returns.

        Raises:
            DataError: see `Recommender.add_items`; or no room.
            RetryableError: the disk or the encoder fails; nothing was taken in.
        """
        while True:
            model = self._live.current
            fresh = [item for item in items if not self._holds(item)]
            held = [str(item["item_id"]) for item in items if self._holds(item)]
            if not fresh:
                return [], held
            if len(self._journal) + len(fresh) > self._limit:
                raise DataError(f"{len(self._journal)} new items are held, at most {self._limit} are kept; publish a model that knows them")
            other = [str(item["item_id"]) for item in fresh if self._journal.item(str(item.get("item_id"))) is not None]
            if other:
                raise DataError(f"new items that are held with other fields: {', '.join(map(repr, other[:5]))}; an item's text does not change")
            new = new_rows(model.catalog, fresh)
            spaces = model.bundle.ranker.spaces
            # Outside the lock: an encoder takes its time.
            vectors = {signal: model.encode(signal, new) for signal in spaces}
            with self._live.writing:
                if self._live.current is not model:
                    continue
                self._journal.append(fresh, {spaces[signal]: rows for signal, rows in vectors.items()})
                model.add_encoded(fresh, vectors)
            self._live.changed()
            self.show()
            return [str(item["item_id"]) for item in fresh], held

    def bring_into(self, model: Recommender) -> None:
        """Add to `model` all that is held and that it does not know. What it cannot take in is left out, counted and logged.

        Raises:
            RetryableError: the encoder fails.
        """
        schema = model.catalog.table.schema
        todo = [{name: value for name, value in item.items() if name in schema} for item in self._journal.items if item["item_id"] not in model.catalog.items]
        left_out: list[str] = []
        if todo:
            try:
                self._bring(model, todo)
            except (DataError, ArtifactError):
                for item in todo:
                    try:
                        self._bring(model, [item])
                    except (DataError, ArtifactError) as error:
                        left_out.append(str(item["item_id"]))
                        _log.error("model %s %s cannot take in a new item: %s", model.name, model.version, error)
        self._left_out = frozenset(left_out)

    def follow(self) -> None:
        """Bring in what other services wrote, and what failed before. Raises RetryableError."""
        self._journal.refresh()
        model = self._live.current
        with self._live.writing:
            before = model.state.added
            if any(item["item_id"] not in model.catalog.items and item["item_id"] not in self._left_out for item in self._journal.items):
                self.bring_into(model)
        if model.state.added != before:
            self._live.changed()
        self.show()

    def show(self) -> None:
        """In the metrics."""
        self._metrics.new_items.labels("scorable").set(self._live.current.state.added)
        self._metrics.new_items.labels("left out").set(len(self._left_out))
        self._metrics.damaged.set(self._journal.damaged)

    def _holds(self, item: Item) -> bool:
        return self._journal.item(str(item.get("item_id"))) == item

    def _bring(self, model: Recommender, items: Sequence[Item]) -> None:
        ids = [str(item["item_id"]) for item in items]
        vectors: dict[str, FloatArray] = {}
        made: dict[str, FloatArray] = {}
        new = new_rows(model.catalog, items)
        for signal, space in model.bundle.ranker.spaces.items():
            kept = self._journal.vectors(space, ids)
            if all(row is not None for row in kept):
                vectors[signal] = np.stack([row for row in kept if row is not None])
            else:
                vectors[signal] = made[space] = model.encode(signal, new)
        if made:
            try:
                self._journal.append([self._journal.item(i) or {} for i in ids], made)
            except RetryableError as error:
                # They can be made again.
                _log.warning("vectors of new items were not stored: %s", error)
        model.add_encoded(items, vectors)


def item_fields(item: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was not given, so that equal items are equal."""
    return {name: value for name, value in item.items() if value is not None and value != []}
