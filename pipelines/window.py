"""Stage `split` of a nightly run: what came before the newest window trains, the newest window is tested."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from pipelines import ingest
from pipelines.stage import Inputs, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.config import Config
from recsys.data.interactions import Interactions
from recsys.data.leaks import assert_sound_split
from recsys.data.split import Cases, Split, SplitConfig, make_split
from recsys.errors import DataError
from recsys.types import IntArray

VERSION = 1


class WindowConfig(Config):
    """start: Unix seconds UTC, the first moment of the newest window; it ends with the data."""

    start: int
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Newest share of the events before the window, which decides when training stops and trains nothing."""


def run(config: WindowConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    data_split = window_split(config, ingest.load(inputs["data"]).interactions)
    assert_sound_split(data_split)
    data_split.save(folder)
    return {"protocol": data_split.protocol, "split_hash": data_split.digest, "window_start": config.start, **data_split.counts}


def window_split(config: WindowConfig, interactions: Interactions) -> Split:
    """`global_temporal` with its test time at the window's start. Raises DataError: no event in the window, or hardly any before."""
    total, before = len(interactions), int((interactions.times < config.start).sum())
    if before == total:
        raise DataError(f"no event at or after {config.start} (the start of the window): nothing can be evaluated; is the day's file of that day?")
    # Half a step: the share must not fall onto the event before by rounding.
    validation_from = (int(before * (1 - config.validation_share)) + 0.5) / total
    if before < 2 or validation_from >= (before + 0.5) / total:
        raise DataError(f"{before} events before {config.start} (the start of the window) are too few to train and validate with; run for a later day")
    return make_split(SplitConfig(protocol="global_temporal", validation_from=validation_from, test_from=(before + 0.5) / total), interactions)


def window_users(interactions: Interactions, start: int) -> IntArray:
    """int64: users with an event in the window and one before it, ascending."""
    total = np.bincount(interactions.user_nums, minlength=len(interactions.users))
    before = np.bincount(interactions.user_nums[interactions.times < start], minlength=len(interactions.users))
    return np.flatnonzero((before > 0) & (before < total)).astype(np.int64)


def window_cases(interactions: Interactions, start: int, user_nums: IntArray, *, most: int) -> Cases:
    """Every event in the window of each of `user_nums` as a target, at most the first `most`; all that the user did until then is its history,
    earlier events of the window among it: the live service knows them too."""
    histories, times = interactions.sequences(), interactions.times
    rows = []
    for user_num in user_nums.tolist():
        begin, end = histories.offsets[user_num : user_num + 2].tolist()
        first = begin + int(np.searchsorted(times[begin:end], start))
        for place in range(first, min(end, first + most)):
            history = histories.item_nums[begin:place]
            rows.append((user_num, history, history, int(histories.item_nums[place])))
    return Cases.of_rows(rows)


def load(artifact: Artifact) -> Split:
    return Split.load(artifact.path)
