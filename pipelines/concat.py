"""Stage `concat`: tables of encoders or made of the split, each post-processed -> one table with their vectors side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from pipelines import ingest, split
from pipelines.item_tables import concatenated, made_table, post_processed
from pipelines.measure_embedding import MeasureConfig, input_table
from pipelines.stage import Inputs, Surroundings
from recsys.config import Config

VERSION = 2


class ConcatConfig(Config):
    parts: tuple[MeasureConfig, ...]
    """What is done to the tables of the inputs "0", "1", ...; a part that is made has no input of its own."""
    weights: tuple[float, ...] = Field(default=(), exclude_if=lambda weights: not weights)
    """Of the unit vectors of the parts; none: 1 each."""


def run(config: ConcatConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    data_split = split.load(inputs["split"])
    tables = []
    for number, part in enumerate(config.parts):
        if part.made is not None:
            table = made_table(part.made, data_split, lambda: ingest.load(inputs["data"]).catalog)
        else:
            table = input_table(part, inputs[str(number)])
        tables.append(post_processed(part.post, table, data_split))
    table = concatenated(tables, data_split.items, config.weights or None)
    table.save(folder)
    return {"space_id": table.space_id, "parts": [part.space_id for part in tables]}
