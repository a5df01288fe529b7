"""Stage `concat`: tables of encoders, each post-processed -> one table with their vectors side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines import split
from pipelines.item_tables import concatenated, post_processed
from pipelines.measure_embedding import MeasureConfig, input_table
from pipelines.stage import Inputs, Surroundings
from recsys.config import Config

VERSION = 1


class ConcatConfig(Config):
    parts: tuple[MeasureConfig, ...]
    """What is done to the tables of the inputs "0", "1", ..."""


def run(config: ConcatConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    data_split = split.load(inputs["split"])
    tables = [post_processed(part.post, input_table(part, inputs[str(number)]), data_split) for number, part in enumerate(config.parts)]
    table = concatenated(tables, data_split.items)
    table.save(folder)
    return {"space_id": table.space_id, "parts": [part.space_id for part in tables]}
