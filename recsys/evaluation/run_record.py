"""`RunRecord`: one training and evaluation of one model on one split, as it stands on a board.

Two files beside each other: `<model>-seed<n>.json` with the figures and `<model>-seed<n>.ranks.parquet` with the rank of
each test case's target, from which every single-target metric, interval and paired test follows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import BeforeValidator, Field

from recsys.artifacts.atomic import read_json, write_bytes, write_json
from recsys.config import Config
from recsys.errors import ArtifactError
from recsys.evaluation.report import plain
from recsys.types import IntArray

MaybeNumber = Annotated[float | None, BeforeValidator(plain)]
"""A figure that need not exist: the NaN of an empty slice becomes null."""


class RunRecord(Config):
    """metrics: "recall@10" -> mean over the test cases, history masked.  unmasked: the same without any mask.
    validation: on the validation cases, at the epoch that was kept.  slices: slice -> {"count": n, "recall@10": ...}.
    beyond: beyond accuracy, such as "coverage@10".  curve: one dict an epoch (epoch, loss, validation).
    """

    dataset: str
    protocol: str
    split_hash: str
    model: str
    label: str
    seed: Annotated[int, Field(ge=0)]
    config: dict[str, Any]
    cases: Annotated[int, Field(ge=0)]
    metrics: dict[str, float]
    unmasked: dict[str, float] = Field(default_factory=dict)
    validation: dict[str, float] = Field(default_factory=dict)
    slices: dict[str, dict[str, MaybeNumber]] = Field(default_factory=dict)
    beyond: dict[str, MaybeNumber] = Field(default_factory=dict)
    data: dict[str, int] = Field(default_factory=dict)
    """What ingest and split counted: quarantined rows by reason, users that are not evaluated, unseen targets, ..."""
    parameters: Annotated[int, Field(ge=0)] = 0
    """Trained numbers; 0 for models without any."""
    spaces: dict[str, str] = Field(default_factory=dict)
    """Signal -> space_id of the vectors that the model was trained on."""
    epochs: Annotated[int, Field(ge=0)] = 0
    best_epoch: Annotated[int, Field(ge=0)] = 0
    curve: list[dict[str, float]] = Field(default_factory=list)
    train_seconds: float
    inference_ms_per_user: float
    peak_rss_mb: float
    threads: Annotated[int, Field(ge=1)]
    capped: str | None = None
    """What ended the training early, such as "2 h", in words; null: it ended by itself."""
    commit: str
    command: str
    """Without machine paths: data by $RECSYS_DATA."""
    created: str
    """UTC, ISO 8601."""

    @property
    def stem(self) -> str:
        return f"{self.model}-seed{self.seed}"


def write_run(folder: Path, record: RunRecord, better: IntArray, tied: IntArray) -> Path:
    """better, tied: int64 (N,) of the test cases in the split's order (see `evaluation.metrics`). Returns the JSON's path."""
    if not len(better) == len(tied) == record.cases:
        raise ValueError(f"{record.cases} cases, but {len(better)} and {len(tied)} ranks")
    folder.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame({"better": better.astype(np.int32), "tied": tied.astype(np.int32)})
    ranks = folder / f"{record.stem}.ranks.parquet"
    frame.write_parquet(temporary := ranks.with_suffix(".tmp"), compression="zstd", compression_level=19)
    write_bytes(ranks, temporary.read_bytes())
    temporary.unlink()
    # The JSON comes last: where it stands, the run is whole.
    path = folder / f"{record.stem}.json"
    write_json(path, record.model_dump(mode="json"))
    return path


def read_run(path: Path) -> RunRecord:
    """Raises ArtifactError: not a run's JSON."""
    try:
        return RunRecord.model_validate(read_json(path))
    except (ValueError, FileNotFoundError) as error:
        raise ArtifactError(f"{path}: not the record of a run: {error}") from None


def read_ranks(path: Path) -> tuple[IntArray, IntArray]:
    """(better, tied), int64 (N,), of the run whose JSON is `path`. Raises ArtifactError when the file is missing or unreadable."""
    ranks = path.with_name(f"{path.stem}.ranks.parquet")
    try:
        frame = pl.read_parquet(ranks, columns=["better", "tied"]).cast(pl.Int64)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(f"{ranks}: the ranks of this run cannot be read: {error}") from None
    if not frame.filter(pl.any_horizontal(pl.all().is_null(), pl.col("better") < 0, pl.col("tied") < 1)).is_empty():
        raise ArtifactError(f"{ranks}: not ranks: expected better >= 0 and tied >= 1 in each row")
    return frame["better"].to_numpy(), frame["tied"].to_numpy()


def read_board(folder: Path) -> list[tuple[Path, RunRecord]]:
    """All runs of a board, sorted by model and seed; none where there is no such folder."""
    found = [(path, read_run(path)) for path in folder.glob("*-seed*.json")]
    return sorted(found, key=lambda entry: (entry[1].model, entry[1].seed))
