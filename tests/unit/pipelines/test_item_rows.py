from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.item_rows import ItemRows

TABLE = pl.DataFrame({"item_id": [f"i{i}" for i in range(20)], "image": [bytes([i]) for i in range(20)], "categories": [["a", "b"]] * 20})


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> ItemRows:
    """Twenty rows in groups of seven."""
    file = tmp_path_factory.mktemp("items") / "items.parquet"
    TABLE.write_parquet(file, row_group_size=7)
    return ItemRows(file)


@given(st.sets(st.integers(0, 19), min_size=1))
def test_rows_are_those_of_the_table(rows: ItemRows, chosen: set[int]) -> None:
    wanted = np.array(sorted(chosen))
    assert rows.at(wanted).equals(TABLE[wanted])


def test_all_ids_in_order(rows: ItemRows) -> None:
    assert list(rows.ids()) == TABLE["item_id"].to_list() and len(rows) == 20 and rows.columns == TABLE.columns


def test_an_empty_table(tmp_path: Path) -> None:
    TABLE.head(0).write_parquet(tmp_path / "none.parquet")
    empty = ItemRows(tmp_path / "none.parquet")
    assert len(empty) == 0 and list(empty.ids()) == []
