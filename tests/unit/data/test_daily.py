"""A folder of days is one growing table: rows keep their place, items their row, and what is not a day is told."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from recsys.data.sources.daily import DailySource
from recsys.data.sources.raw import ROW
from recsys.data.validation import ValidationConfig, clean
from recsys.errors import ConfigError, DataError

COLUMNS = {"user_id": "u", "item_id": "i", "time": "t"}


@pytest.fixture
def landed(tmp_path: Path) -> DailySource:
    """Three days; item b changes on the second, d is new on the third, and a line of the third is torn."""
    for day, events, items in (
        ("2026-11-01", "u1,a,1\nu1,b,2", "a,Alpha\nb,Beta"),
        ("2026-11-02", "u2,b,3", "b,Beta 2\nc,Gamma"),
        ("2026-11-03", "u2,d,4\nu2,,5", "d,Delta\n,Nameless"),
    ):
        for part, head, rows in (("events", "u,i,t", events), ("items", "id,name", items)):
            (tmp_path / part).mkdir(exist_ok=True)
            (tmp_path / part / f"{day}.csv").write_text(f"{head}\n{rows}\n")
    return DailySource(folder=tmp_path, events=COLUMNS, items={"item_id": "id", "title": "name"})


def test_days_are_one_table_in_their_order(landed: DailySource) -> None:
    frame = landed.read_interactions().frame
    assert frame[ROW].to_list() == [1, 2, 3, 4, 5]
    assert frame["item_id"].to_list() == ["a", "b", "b", "d", None]
    assert [file.name for file in landed.files()] == [f"2026-11-0{n}.csv" for n in (1, 2, 3)] * 2


def test_items_keep_the_row_of_their_first_day_and_the_text_of_their_last(landed: DailySource) -> None:
    through = [
        clean(source.read_interactions(), source.read_items(), ValidationConfig()) for source in (landed.model_copy(update=until) for until in _until(1, 2, 3))
    ]
    assert [data.catalog.items.ids for data in through] == [("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d")]
    assert through[2].catalog.titles() == ["Alpha", "Beta 2", "Gamma", "Delta"]
    assert through[2].quarantine_counts() == {"events: missing item_id": 1, "items: missing item_id": 1}
    through[2].catalog.items.require_prefix(3, through[1].catalog.items.digest, what="yesterday")


def test_one_day_alone(landed: DailySource) -> None:
    assert landed.read_day(date(2026, 11, 2)).frame["user_id"].to_list() == ["u2"]
    with pytest.raises(DataError, match="no file of 2026-11-09; the last one is of 2026-11-03"):
        landed.read_day(date(2026, 11, 9))
    with pytest.raises(DataError, match="the last one is of 2026-11-01"):
        landed.model_copy(update={"through": date(2026, 11, 1)}).read_day(date(2026, 11, 2))


def test_formats_may_differ_from_day_to_day_and_torn_lines_are_counted_through(landed: DailySource) -> None:
    (landed.folder / "events" / "2026-11-04.jsonl").write_text('{"u": "u3", "i": "a", "t": 6}\nnonsense\n')
    pl.DataFrame({"u": ["u3"], "i": ["b"], "t": [7]}).write_parquet(landed.folder / "events" / "2026-11-05.parquet")
    table = landed.read_interactions()
    assert table.unreadable == ((7, "not JSON (2026-11-04.jsonl)", "nonsense"),)
    assert table.frame[ROW].to_list() == [1, 2, 3, 4, 5, 6, 8]


@pytest.mark.parametrize(
    ("name", "message"),
    [("latest.csv", "the name of a file of a day is its date"), ("2026-11-02.txt", "unknown ending '.txt'"), ("2026-11-02.tsv", "of the same day; leave one")],
)
def test_other_files_are_told(landed: DailySource, name: str, message: str) -> None:
    (landed.folder / "events" / f".{name}.tmp").write_text("half")
    landed.days()
    (landed.folder / "events" / name).write_text("u,i,t\n")
    with pytest.raises(DataError, match=message):
        landed.days()


def test_missing_days_columns_and_times(landed: DailySource, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file of a day up to 2026-10-01"):
        landed.model_copy(update={"through": date(2026, 10, 1)}).days()
    with pytest.raises(ConfigError, match="lacks 'time'"):
        DailySource(folder=tmp_path, events={"user_id": "u", "item_id": "i"}).read_interactions()
    with pytest.raises(DataError, match="no file of items"):
        landed.model_copy(update={"through": date(2026, 10, 1)}).read_items()
    assert DailySource(folder=tmp_path, events=COLUMNS).read_items() is None


def _until(*days: int) -> list[dict[str, object]]:
    return [{"through": date(2026, 11, day)} for day in days]
