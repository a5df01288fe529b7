"""Stage `split`: clean interactions -> one hashed `Split`, shared by every model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines import ingest
from pipelines.stage import Inputs, Surroundings
from recsys.artifacts.artifact import Artifact
from recsys.data.leaks import assert_sound_split
from recsys.data.split import Split, SplitConfig, make_split

VERSION = 1


def run(config: SplitConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    split = make_split(config, ingest.load(inputs["data"]).interactions)
    assert_sound_split(split)
    split.save(folder)
    return {
        "protocol": split.protocol,
        "split_hash": split.digest,
        "held_out_items": int(split.held_out.sum()),
        **split.counts,
    }


def load(artifact: Artifact) -> Split:
    return Split.load(artifact.path)
