from __future__ import annotations

import numpy as np
import pytest

from recsys.errors import DataError
from recsys.serving.categories import Categories

ITEMS = [["drama"], ["drama", "war"], [], ["war", "war"]]


def allowed(categories: Categories, allow: list[str] | None, deny: list[str] | None) -> list[int]:
    mask = categories.allowed(allow, deny)
    assert mask is not None
    return np.flatnonzero(mask).tolist()


def test_allow_and_deny_lists_by_hand() -> None:
    categories = Categories.of_items(ITEMS)
    assert categories.names == ["drama", "war"]
    assert categories.allowed(None, None) is None
    assert categories.allowed(None, []) is None
    assert allowed(categories, ["drama"], None) == [0, 1]
    assert allowed(categories, None, ["war"]) == [0, 2]  # the item without a category is in none that is denied
    assert allowed(categories, ["drama", "war"], ["drama"]) == [3]
    assert allowed(categories, [], None) == []


def test_new_items_join_and_the_old_value_stays() -> None:
    before = Categories.of_items(ITEMS)
    after = before.extended([["war"], ["noir"]])
    assert allowed(after, ["war"], None) == [1, 3, 4]
    assert allowed(after, ["noir"], None) == [5]
    assert allowed(before, ["war"], None) == [1, 3]
    assert before.names == ["drama", "war"]


def test_a_category_that_no_item_has_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match=r"'dramma', did you mean 'drama'.*has 2: drama, war"):
        Categories.of_items(ITEMS).allowed(["dramma"], None)
