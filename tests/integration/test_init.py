"""`recsys init` as a new user meets it: files of any column names, a config that the pipeline takes as it is."""

from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from pipelines.config import RunConfig
from pipelines.init import write_config
from recsys.errors import ConfigError, DataError


def files(folder: Path) -> tuple[Path, Path]:
    (folder / "events.csv").write_text("reviewerID,product,unixReviewTime\nu,a,1\n")
    pl.DataFrame({"asin": ["a"], "name": ["A it's"], "tags": [["x", "y"]]}).write_parquet(folder / "items.parquet")
    return folder / "events.csv", folder / "items.parquet"


def test_the_written_config_is_valid_and_reads_the_files(tmp_path: Path) -> None:
    events, items = files(tmp_path)
    output = tmp_path / "recsys.yaml"
    console = Console(record=True, width=200)
    write_config(events, items, [], "shop", output, False, console)
    config = RunConfig.read(output)
    assert config.data.source.read_interactions().frame["user_id"].to_list() == ["u"]
    raw_items = config.data.source.read_items()
    assert raw_items is not None and raw_items.frame["categories"].to_list() == [["x", "y"]]
    assert config.embed[0].template == "{title}|. Categories: {categories}"
    assert "(guessed)" in console.export_text()


def test_a_given_mapping_wins_over_the_guess(tmp_path: Path) -> None:
    events, items = files(tmp_path)
    write_config(events, items, ["time=product"], "shop", tmp_path / "c.yaml", False, Console(quiet=True))
    source = RunConfig.read(tmp_path / "c.yaml").data.source
    assert source.kind == "table" and source.interactions.columns["time"] == "product"


def test_the_items_may_be_called_otherwise_in_each_file(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("who,what\nu,a\n")
    (tmp_path / "items.csv").write_text("ref,name\na,Alien\n")
    mappings = ["user_id=who", "item_id=what", "item_id=ref"]
    write_config(tmp_path / "events.csv", tmp_path / "items.csv", mappings, "shop", tmp_path / "c.yaml", False, Console(quiet=True))
    source = RunConfig.read(tmp_path / "c.yaml").data.source
    assert source.read_interactions().frame["item_id"].to_list() == ["a"]
    raw_items = source.read_items()
    assert raw_items is not None and raw_items.frame["item_id"].to_list() == ["a"]


def test_without_items_the_model_knows_ids_only(tmp_path: Path) -> None:
    events, _ = files(tmp_path)
    write_config(events, None, [], "shop", tmp_path / "c.yaml", False, Console(quiet=True))
    assert RunConfig.read(tmp_path / "c.yaml").embed == ()


def test_mistakes(tmp_path: Path) -> None:
    events, items = files(tmp_path)
    (tmp_path / "odd.csv").write_text("who,what\nu,a\n")
    output = tmp_path / "c.yaml"
    with pytest.raises(ConfigError, match="which column is 'user_id'.*it has: who, what"):
        write_config(tmp_path / "odd.csv", None, [], "shop", output, False, Console(quiet=True))
    with pytest.raises(ConfigError, match="expected OURS=THEIRS"):
        write_config(events, items, ["nonsense"], "shop", output, False, Console(quiet=True))
    with pytest.raises(ConfigError, match="'nothing'"):
        write_config(events, items, ["time=nothing"], "shop", output, False, Console(quiet=True))
    with pytest.raises(DataError, match="cannot be read"):
        write_config(tmp_path / "none.csv", None, [], "shop", output, False, Console(quiet=True))
    output.write_text("mine")
    with pytest.raises(ConfigError, match="--overwrite"):
        write_config(events, items, [], "shop", output, False, Console(quiet=True))
    assert output.read_text() == "mine"
