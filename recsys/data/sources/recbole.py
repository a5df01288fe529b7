"""RecBole atomic files: tab-separated, header `name:type`. The wheel itself ships ml-100k."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Literal

import polars as pl

from recsys.config import Config
from recsys.data.sources.raw import RawTable, read_utf8, select_columns
from recsys.errors import DataError

TITLE_FIELDS = ("movie_title", "title", "name")
YEAR_FIELDS = ("release_year", "year")
CATEGORY_FIELDS = ("class", "genre", "genres", "categories")


class RecBoleSource(Config):
    kind: Literal["recbole"] = "recbole"
    dataset: str = "ml-100k"
    """Name of the data set: the folder and the stem of its files."""
    folder: Path | None = None
    """Folder that holds `<dataset>/<dataset>.inter`; null: the examples inside the recbole wheel."""
    ordered: bool = True
    """False: the order of the rows in the file means nothing, and events of one time are put in the order of their item ids."""

    def _stem(self) -> Path:
        root = self.folder
        if root is None:
            spec = importlib.util.find_spec("recbole")
            if spec is None or not spec.submodule_search_locations:
                raise DataError("the recbole package is not installed, and no folder was given")
            root = Path(spec.submodule_search_locations[0]) / "dataset_example"
        return root / self.dataset / self.dataset

    def files(self) -> list[Path]:
        return [self._stem().with_name(f"{self.dataset}.inter"), self._stem().with_name(f"{self.dataset}.item")]

    def read_interactions(self) -> RawTable:
        path = self.files()[0]
        frame = _read_atomic(path)
        columns = {"user_id": "user_id", "item_id": "item_id"}
        columns |= {ours: theirs for ours, theirs in (("time", "timestamp"), ("rating", "rating")) if theirs in frame.columns}
        return replace(select_columns(path, frame, columns), ordered=self.ordered)

    def read_items(self) -> RawTable | None:
        path = self.files()[1]
        if not path.is_file():
            return None
        frame = _read_atomic(path)
        columns = {"item_id": "item_id"}
        for ours, candidates in (("title", TITLE_FIELDS), ("year", YEAR_FIELDS), ("categories", CATEGORY_FIELDS)):
            present = [theirs for theirs in candidates if theirs in frame.columns]
            if present:
                columns[ours] = present[0]
        table = select_columns(path, frame, columns)
        if "categories" in columns:
            # token_seq: values separated by spaces
            return RawTable(table.file, table.frame.with_columns(pl.col("categories").str.split(" ")))
        return table


def _read_atomic(path: Path) -> pl.DataFrame:
    text = read_utf8(path)
    try:
        frame = pl.read_csv(StringIO(text), separator="\t", infer_schema=False, quote_char=None)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: not a tab-separated atomic file: {error}") from None
    return frame.rename({name: name.split(":")[0] for name in frame.columns})
