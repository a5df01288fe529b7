"""Every YAML block parses by the config that it is of; `$RECSYS_DATA` and folders need not exist."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from infra.docs import blocks
from pipelines.baselines import Baseline
from pipelines.board_config import BoardConfig, FusionFile
from pipelines.config import RunConfig
from pipelines.embedding_rows import EmbeddingBoardConfig
from pipelines.explain import ExplainFile
from recsys.config import Config
from recsys.embeddings.configs import parse_encoder
from recsys.errors import ConfigError
from tests.unit.docs.reading import PAGES, whole

RUN = {"name": "shop", "data": {"source": {"kind": "table", "interactions": {"path": "events.csv", "columns": {"user_id": "u", "item_id": "i"}}}}}


class One(Config):
    model: Baseline


def parsed(document: Any, source: str) -> str:
    """The config that took it. Raises ConfigError: none is of this form, or the one that is refuses it."""
    if isinstance(document, list):
        for part in document:
            parse_encoder({"name": "encoder", **part}, source=source)
        return "EncoderConfig"
    keys = set(document)
    if keys <= set(RunConfig.model_fields):
        RunConfig.parse({**RUN, **document}, source=source)
        return "RunConfig"
    if {"task", "writer"} <= keys:
        ExplainFile.parse(document, source=source)
        return "ExplainFile"
    if "rows" in keys:
        EmbeddingBoardConfig.parse(document, source=source)
        return "EmbeddingBoardConfig"
    if "models" in keys:
        for name, model in document["models"].items():
            One.parse({"model": model}, source=f"{source}, {name}")
        if "data" in keys:
            BoardConfig.parse(document, source=source)
        elif "dataset" in keys:
            FusionFile.parse(document, source=source)
        return "BoardConfig"
    raise ConfigError(f"{source}: no config has the keys {', '.join(sorted(keys))}")


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if "```yaml" in text])
def test_yaml(page: str) -> None:
    for block in blocks.blocks(PAGES[page], "yaml"):
        document = yaml.safe_load(block.code)
        try:
            parsed(document, f"{page}, line {block.line}")
        except ConfigError as error:
            if whole(page) or "no config has the keys" not in str(error):
                raise


def test_a_wrong_key_is_found() -> None:
    with pytest.raises(ConfigError, match="poolnig"):
        parsed([{"model": "hashed", "poolnig": "mean"}], "here")
    with pytest.raises(ConfigError, match="no config has the keys"):
        parsed({"nothing": 1}, "here")
