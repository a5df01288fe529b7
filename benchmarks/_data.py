"""The real data sets: ml-100k is always there, the others where RECSYS_DATA names their folder."""

from __future__ import annotations

import os
from pathlib import Path

from recsys.data.sources.recbole import RecBoleSource
from recsys.data.sources.table import TableFile, TableSource
from recsys.data.split import Split, SplitConfig, make_split
from recsys.data.validation import ValidationConfig, clean


def real(name: str) -> TableSource | None:
    """None: RECSYS_DATA is not set, or its folder lacks the data set."""
    folder = os.environ.get("RECSYS_DATA")
    path = Path(folder) / name / "interactions.parquet" if folder else None
    if path is None or not path.is_file():
        return None
    return TableSource(interactions=TableFile(path=path, columns={"user_id": "user_id", "item_id": "item_id", "time": "position"}))


def split_of(source: TableSource | RecBoleSource) -> Split:
    """Leave-last-out. Items without events are left out: no model here has anything to say of them."""
    return make_split(SplitConfig(), clean(source.read_interactions(), None, ValidationConfig()).interactions)
