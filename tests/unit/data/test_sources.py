"""One data set in every format is one split, and the public data sets come in whole."""

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.data.sources.recbole import RecBoleSource
from recsys.data.sources.table import INTERACTION_FIELDS, ITEM_FIELDS, TableFile, TableSource, guess_columns, read_frame
from recsys.data.split import SplitConfig, make_split
from recsys.data.validation import CleanData, ValidationConfig, clean
from recsys.errors import ConfigError, DataError

EVENTS = pl.DataFrame(
    [(f"u{row % 5}", f"{(row * 7) % 13}", 1000 + row // 4) for row in range(60)],
    schema={"user_id": pl.String, "item_id": pl.String, "time": pl.Int64},
    orient="row",
)
"""Many ties in time: only the order of the rows tells events apart."""


def read(source: TableSource | RecBoleSource) -> CleanData:
    return clean(source.read_interactions(), source.read_items(), ValidationConfig())


def table(path: Path, *, ordered: bool = True) -> TableSource:
    return TableSource(interactions=TableFile(path=path, columns=guess_columns(read_frame(path)[0].columns, INTERACTION_FIELDS)), ordered=ordered)


def in_all_formats(folder: Path, events: pl.DataFrame) -> dict[str, TableSource | RecBoleSource]:
    folder.mkdir(exist_ok=True)
    events.write_parquet(folder / "e.parquet")
    events.write_csv(folder / "e.csv")
    events.write_csv(folder / "e.tsv", separator="\t")
    (folder / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in events.iter_rows(named=True)))
    (folder / "d").mkdir()
    atomic = events.rename({"user_id": "user_id:token", "item_id": "item_id:token", "time": "timestamp:float"})
    atomic.write_csv(folder / "d" / "d.inter", separator="\t")
    tables: dict[str, TableSource | RecBoleSource] = {name: table(folder / f"e.{name}") for name in ("parquet", "csv", "tsv", "jsonl")}
    return tables | {"recbole": RecBoleSource(dataset="d", folder=folder)}


def test_the_same_events_in_five_formats_are_the_same_split(tmp_path: Path) -> None:
    digests = {name: make_split(SplitConfig(), read(source).interactions).digest for name, source in in_all_formats(tmp_path, EVENTS).items()}
    assert len(digests) == 5 and len(set(digests.values())) == 1


def test_without_order_every_format_and_every_shuffle_is_the_same_split(tmp_path: Path) -> None:
    digests = set()
    for seed in (1, 2):
        shuffled = EVENTS.sample(fraction=1, shuffle=True, seed=seed)
        for source in in_all_formats(tmp_path / str(seed), shuffled).values():
            digests.add(make_split(SplitConfig(), read(source.model_copy(update={"ordered": False})).interactions).digest)
    assert len(digests) == 1


def test_neither_time_nor_order_is_an_error(tmp_path: Path) -> None:
    EVENTS.drop("time").write_csv(tmp_path / "e.csv")
    with pytest.raises(DataError, match="no time column, and `ordered: false`"):
        read(table(tmp_path / "e.csv", ordered=False))


DATA = os.environ.get("RECSYS_DATA")

needs_data = pytest.mark.skipif(not DATA, reason="RECSYS_DATA, the folder of the public data sets, is not set")

COUNTS = {
    # users, items with interactions, interactions, repeated pairs
    "amazon_beauty": (22_363, 12_101, 198_502, 0),
    "amazon_toys": (19_412, 11_924, 167_597, 0),
    "amazon_industrial": (9_791, 5_317, 68_186, 4_424),
    "ml-1m": (6_038, 3_307, 835_789, 0),
    "ml-100k": (943, 1_682, 100_000, 0),
}


@needs_data
@pytest.mark.parametrize("dataset", COUNTS)
def test_public_data_sets_come_in_whole(dataset: str) -> None:
    folder = Path(DATA or "") / dataset
    files = {}
    for name, fields in (("interactions", INTERACTION_FIELDS), ("items", ITEM_FIELDS)):
        path = folder / f"{name}.parquet"
        files[name] = TableFile(path=path, columns=guess_columns(list(pl.read_parquet_schema(path)), fields))
    assert "time" in files["interactions"].columns
    data = read(TableSource(**files))
    assert len(data.quarantine) == 0
    events = data.interactions
    pairs = np.unique(events.user_nums * len(events.items) + events.item_nums)
    assert (len(events.users), len(np.unique(events.item_nums)), len(events), len(events) - len(pairs)) == COUNTS[dataset]
    if dataset == "amazon_industrial":
        # 447 targets of the last event are repeats
        assert make_split(SplitConfig(), events).counts["test_targets_repeated"] == 447


def illustrated(folder: Path, pictures: pl.DataFrame, **items: str) -> TableSource:
    EVENTS.write_parquet(folder / "e.parquet")
    pl.DataFrame({"id": ["0", " 1", "2", "0"], "name": ["nil", "one", "two", "nil again"], "poster": [b"x"] * 4}).write_parquet(folder / "i.parquet")
    pictures.write_parquet(folder / "p.parquet")
    return TableSource(
        interactions=TableFile(path=folder / "e.parquet", columns={name: name for name in EVENTS.columns}),
        items=TableFile(path=folder / "i.parquet", columns={"item_id": "id", "title": "name", **items}),
        pictures=TableFile(path=folder / "p.parquet", columns={"item_id": "id", "image": "jpeg"}),
    )


def test_pictures_of_a_file_of_their_own_join_their_items(tmp_path: Path) -> None:
    """By id, whatever its type; an item without one, a picture without an item, and a picture that is null are no errors."""
    source = illustrated(tmp_path, pl.DataFrame({"id": [2, 7, 1, 0], "jpeg": [b"two", b"nobody's", b"one", None]}))
    raw = source.read_items()
    assert raw is not None and raw.frame["image"].to_list() == [None, b"one", b"two", None] and raw.frame["title"].to_list()[3] == "nil again"
    assert source.files() == [tmp_path / "e.parquet", tmp_path / "i.parquet", tmp_path / "p.parquet"]
    catalog = clean(source.read_interactions(), source.read_items(), ValidationConfig()).catalog.table
    assert dict(catalog.select("item_id", "image").iter_rows()) == {"0": None, "1": b"one", "2": b"two"}


def test_pictures_that_do_not_fit(tmp_path: Path) -> None:
    twice = pl.DataFrame({"id": ["1", "1", "2"], "jpeg": [b"a", b"b", b"c"]})
    with pytest.raises(DataError, match="1 items have more than one picture, such as '1'"):
        illustrated(tmp_path, twice).read_items()
    once = illustrated(tmp_path, twice[1:])
    with pytest.raises(ConfigError, match="a column 'image' of their own"):
        illustrated(tmp_path, twice[1:], image="poster").read_items()
    with pytest.raises(ConfigError, match="need a file of items"):
        once.model_copy(update={"items": None}).read_items()


def test_without_pictures_a_source_is_what_it_was_before_there_were_any(tmp_path: Path) -> None:
    """Its digest is the key of finished artifacts."""
    plain = TableSource(interactions=TableFile(path=Path("e.csv"), columns={"user_id": "u"}))
    assert "pictures" not in plain.model_dump(mode="json")
    assert plain.digest() != plain.model_copy(update={"pictures": plain.interactions}).digest()
    assert TableSource.parse(plain.model_dump(mode="json")) == plain
