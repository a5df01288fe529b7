"""`Categories`: which items stand in which category, for allow and deny lists."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from recsys.errors import DataError
from recsys.types import BoolArray, IntArray


class Categories:
    """Immutable. rows: category -> int64 item_nums."""

    def __init__(self, rows: Mapping[str, IntArray], n_items: int) -> None:
        self._rows, self._n_items = dict(rows), n_items

    @classmethod
    def of_items(cls, categories: Sequence[Sequence[str]]) -> Self:
        """categories: row r is of item_num r."""
        return cls({}, 0).extended(categories)

    @property
    def names(self) -> list[str]:
        return sorted(self._rows)

    def extended(self, more: Sequence[Sequence[str]]) -> Self:
        """With further items behind those held."""
        found: dict[str, list[int]] = {}
        for num, names in enumerate(more, start=self._n_items):
            for name in dict.fromkeys(names):
                found.setdefault(name, []).append(num)
        nothing = np.zeros(0, dtype=np.int64)
        new = {name: np.concatenate([self._rows.get(name, nothing), np.array(nums, dtype=np.int64)]) for name, nums in found.items()}
        return type(self)({**self._rows, **new}, self._n_items + len(more))

    def allowed(self, allow: Sequence[str] | None, deny: Sequence[str] | None) -> BoolArray | None:
        """bool (n_items,): in one of `allow` (None: any item, also one without a category) and in none of `deny`. None: no item is left out.

        Raises:
            DataError: a category that no item has.
        """
        if allow is None and not deny:
            return None
        mask = np.full(self._n_items, allow is None)
        for name in allow or ():
            mask[self._of(name)] = True
        for name in deny or ():
            mask[self._of(name)] = False
        return mask

    def _of(self, name: str) -> IntArray:
        try:
            return self._rows[name]
        except KeyError:
            close = difflib.get_close_matches(name, self._rows, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            shown = ", ".join(self.names[:20]) or "none"
            raise DataError(f"unknown category {name!r}{hint} The catalogue has {len(self._rows)}: {shown}") from None
