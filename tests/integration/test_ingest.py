"""Stage `ingest`: what it writes is what the next stage reads."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipelines import ingest
from recsys.artifacts.artifact import Artifact, Manifest
from recsys.data.sources.table import TableFile, TableSource
from recsys.data.validation import ValidationConfig, clean


@pytest.mark.parametrize("ordered", [True, False])
def test_events_within_one_second_keep_their_order(tmp_path: Path, ordered: bool) -> None:
    """The file holds whole seconds; the order of the fine times must come back, also against the order of the ids."""
    (tmp_path / "events.csv").write_text("user,item,time\nu,1,1600000000900\nu,2,1600000000100\nu,3,1600000000500\n")
    columns = {"user_id": "user", "item_id": "item", "time": "time"}
    config = ingest.IngestConfig(source=TableSource(interactions=TableFile(path=tmp_path / "events.csv", columns=columns), ordered=ordered))
    surroundings: Any = SimpleNamespace(reporter=None)
    metadata = ingest.run(config, {}, tmp_path, surroundings)
    files = {path.name: "" for path in tmp_path.glob("*.parquet")}
    loaded = ingest.load(Artifact(tmp_path, Manifest("ingest", "key", "hash", files=files, metadata=metadata))).interactions
    cleaned = clean(config.source.read_interactions(), None, ValidationConfig()).interactions
    assert loaded.items.ids_of(loaded.sequences()[0]) == ["2", "3", "1"]
    assert (loaded.tie_rule, loaded.users.ids, loaded.items.ids) == (cleaned.tie_rule, cleaned.users.ids, cleaned.items.ids)
    for name in ("user_nums", "item_nums", "times"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(cleaned, name))
