"""Bad input: every row is kept or stands in quarantine with its reason; a file that cannot be read is a clear error."""

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.sources.table import INTERACTION_FIELDS, ITEM_FIELDS, TableFile, TableSource, guess_columns, read_frame
from recsys.data.text import clean_text
from recsys.data.validation import CleanData, ValidationConfig, _parse_time, clean
from recsys.errors import ConfigError, DataError


def cleaned(folder: Path, events: str, items: str | None = None, config: ValidationConfig | None = None) -> CleanData:
    (folder / "events.csv").write_text(events)
    files = {"interactions": TableFile(path=folder / "events.csv", columns=guess_columns(events.splitlines()[0].split(","), INTERACTION_FIELDS))}
    if items is not None:
        (folder / "items.jsonl").write_text(items)
        files["items"] = TableFile(path=folder / "items.jsonl", columns=guess_columns(read_frame(folder / "items.jsonl")[0].columns, ITEM_FIELDS))
    source = TableSource(**files)
    return clean(source.read_interactions(), source.read_items(), config or ValidationConfig())


def test_each_planted_bad_row_gets_its_reason(tmp_path: Path) -> None:
    events = "user,asin,ts,rating\nu1,a,1,5\nu1,a,1,5\n,a,2,3\nu2,,2,3\nu2,b,soon,3\nu2,b,nan,3\nu2,zz,5,3\nu2,b,2020-01-01,4\nu2,b,7,inf\nu3,a,,4\n"
    items = '{"asin":"a","title":"A"}\n{"asin":"b","title":null}\nnot json\n[1]\n{"asin":"a","title":"again"}\n{"title":"nameless"}\n'
    data = cleaned(tmp_path, events, items)
    by_row = {(Path(file).name, row): reason for file, row, reason, _ in data.quarantine.rows()}
    assert by_row == {
        ("events.csv", 2): "duplicate event",
        ("events.csv", 3): "missing user_id",
        ("events.csv", 4): "missing item_id",
        ("events.csv", 5): "unparsable time",
        ("events.csv", 6): "non-finite time",
        ("events.csv", 7): "unknown item",
        ("events.csv", 9): "non-finite rating",
        ("events.csv", 10): "missing time",
        ("items.jsonl", 3): "not JSON",
        ("items.jsonl", 4): "not a JSON object",
        ("items.jsonl", 5): "duplicate item_id",
        ("items.jsonl", 6): "missing item_id",
    }
    assert len(data.interactions) + 8 == 10
    assert data.notes["items without text"] == 1
    assert data.notes["users with fewer than 3 events (train only)"] == 2


@given(
    st.lists(
        st.tuples(st.sampled_from(["u", "v", ""]), st.sampled_from(["a", "b", "", "zz"]), st.sampled_from(["1", "2", "x", "", "inf", "2020-01-01T00:00:00Z"])),
        min_size=1,
        max_size=30,
    )
)
def test_no_row_is_lost(rows: list[tuple[str, str, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        events = "user,item,time\n" + "".join(",".join(row) + "\n" for row in rows)
        try:
            data = cleaned(Path(folder), events, '{"item":"a","title":"A"}\n{"item":"b","title":"B"}\n')
        except DataError as error:
            assert "no event is left" in str(error)
            return
        quarantined = data.quarantine.filter(pl.col("file").str.ends_with("events.csv"))
        assert len(data.interactions) + len(quarantined) == len(rows)
        assert quarantined["row"].n_unique() == len(quarantined)


@pytest.mark.parametrize(
    "text", ["881250949", "881250949.0", "881250949000", "1997-12-04T15:55:49Z", "1997-12-04 15:55:49", "1997-12-04T16:55:49+01:00", "1997-12-04T15:55:49.000"]
)
def test_times_in_common_forms_are_the_same_second(tmp_path: Path, text: str) -> None:
    assert cleaned(tmp_path, f"user,item,time\nu,a,{text}\n").interactions.times.tolist() == [881250949]


FINE = {
    "milliseconds": ("1600000000900", "1600000000100", "1600000000500"),
    "fractions": ("1600000000.9", "1600000000.100", "1600000000.5"),
    "iso": ("2020-09-13T12:26:40.900Z", "2020-09-13 12:26:40.1", "2020-09-13T14:26:40.500+02:00"),
    "microseconds": ("1600000000.000009", "1600000000.000001", "1600000000.000005"),
    "below a millisecond": ("1600000000000.009", "1600000000000.001", "1600000000000.005"),
}


@pytest.mark.parametrize("texts", FINE.values(), ids=FINE.keys())
@pytest.mark.parametrize("ordered", [True, False])
def test_events_of_one_second_follow_their_fine_time(tmp_path: Path, texts: tuple[str, str, str], ordered: bool) -> None:
    """The last event is the test target. Item b comes three times: the second time is a duplicate to the microsecond, the third is not."""
    last, first, middle = texts
    rows = [("u", "a", last), ("v", "a", "5"), ("u", "c", first), ("u", "b", middle), ("u", "b", middle), ("u", "b", first)]
    (tmp_path / "events.csv").write_text("user,item,time\n" + "".join(",".join(row) + "\n" for row in rows))
    file = TableFile(path=tmp_path / "events.csv", columns={"user_id": "user", "item_id": "item", "time": "time"})
    source = TableSource(interactions=file, ordered=ordered)
    data = clean(source.read_interactions(), None, ValidationConfig())
    expected = ["c", "b", "b", "a"] if ordered else ["b", "c", "b", "a"]
    assert data.interactions.items.ids_of(data.interactions.sequences()[0]) == expected
    assert data.interactions.times.tolist() == [1600000000] * 4 + [5]
    assert data.quarantine.select("row", "reason").rows() == [(5, "duplicate event")]
    assert data.interactions.users.ids == ("u", "v")


@given(st.lists(st.integers(-200_000_000_000, 200_000_000_000_000), min_size=1, max_size=20))
def test_whole_numbers_are_read_without_loss(numbers: list[int]) -> None:
    frame = pl.DataFrame({"text": [str(number) for number in numbers]}).select(_parse_time(pl.col("text")))
    assert frame["text"].to_list() == [number * (1_000 if abs(number) >= 100_000_000_000 else 1_000_000) for number in numbers]


def test_users_stand_in_the_order_of_the_file_whatever_their_times(tmp_path: Path) -> None:
    data = cleaned(tmp_path, "user,item,time\nz,a,1600000000900\na,a,1600000000100\nm,a,1600000000500\n")
    assert data.interactions.users.ids == ("z", "a", "m")


def test_min_rating_is_counted_not_silent(tmp_path: Path) -> None:
    data = cleaned(tmp_path, "user,item,time,rating\nu,a,1,2\nu,b,2,4\n", config=ValidationConfig(min_rating=3))
    assert data.quarantine_counts() == {"events.csv: rating below 3": 1}


def test_without_a_time_column_file_order_counts(tmp_path: Path) -> None:
    data = cleaned(tmp_path, "user,item\nu,b\nu,a\nu,b\n")
    assert data.interactions.items.ids_of(data.interactions.sequences()[0]) == ["b", "a", "b"]


def test_errors_name_file_column_and_row(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text(" \n")
    (tmp_path / "latin.csv").write_bytes("user,item\nu,a\nu,caf\xe9\n".encode("latin1"))
    (tmp_path / "ok.csv").write_text("user,item\nu,a\n")
    (tmp_path / "ragged.csv").write_text("user,item\nu,a,1,2\n")
    (tmp_path / "odd.xls").write_text("x")
    (tmp_path / "broken.parquet").write_text("x")
    for name, expected in (
        ("empty.csv", "empty"),
        ("latin.csv", "not UTF-8 at row 2"),
        ("odd.xls", "unknown ending"),
        ("nothing.csv", "cannot be read"),
        ("broken.parquet", "Parquet"),
        ("ragged.csv", "CSV"),
    ):
        with pytest.raises(DataError, match=expected) as caught:
            read_frame(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(DataError, match=r"no column 'when'.*it has: user, item"):
        TableFile(path=tmp_path / "ok.csv", columns={"user_id": "user", "item_id": "item", "time": "when"}).load()
    with pytest.raises(ConfigError, match="lacks 'item_id'"):
        TableSource(interactions=TableFile(path=tmp_path / "ok.csv", columns={"user_id": "user"})).read_interactions()


def test_text_is_cleaned() -> None:
    assert clean_text("Tom &amp;amp; Jerry <br/>\x00 &quot;hi&quot;\u202e\n\t x") == 'Tom & Jerry "hi" x'
    assert clean_text("a < b and c > d") == "a < b and c > d"


@given(st.text(max_size=200))
def test_clean_text_is_stable_and_single_spaced(text: str) -> None:
    once = clean_text(text)
    assert "  " not in once and once == once.strip()
    assert not any(ord(c) < 32 for c in once)


def test_a_list_column_survives_parquet_and_jsonl(tmp_path: Path) -> None:
    pl.DataFrame({"id": [1, 2], "tags": [["x", "y"], None]}).write_parquet(tmp_path / "i.parquet")
    (tmp_path / "i.jsonl").write_text(json.dumps({"id": 1, "tags": ["x", "y"]}) + "\n" + json.dumps({"id": 2, "tags": None}) + "\n")
    for name in ("i.parquet", "i.jsonl"):
        frame = TableFile(path=tmp_path / name, columns={"item_id": "id", "categories": "tags"}).load().frame
        assert frame["item_id"].to_list() == ["1", "2"]
        assert frame["categories"].to_list() == [["x", "y"], None]
