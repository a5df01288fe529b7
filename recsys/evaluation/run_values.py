"""Metrics of each test case, from the ranks that lie beside the records of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.evaluation.metrics import METRICS, Metric, MetricArray, metric_of
from recsys.evaluation.run_record import RunRecord, read_board, read_ranks
from recsys.types import IntArray

Run = tuple[Path, RunRecord]
"""The path of the JSON and what stands in it."""


def read_models(folder: Path) -> dict[str, list[Run]]:
    """The runs of a board by model, each model's by seed: what `compare_runs` and `ladder` take. Empty where there is no such folder."""
    models: dict[str, list[Run]] = {}
    for run in read_board(folder):
        models.setdefault(run[1].model, []).append(run)
    return models


def parse_metric(name: str) -> tuple[Metric, int]:
    """("ndcg@10") -> (expected_ndcg, 10). Raises ConfigError: no such metric, or no cutoff."""
    noun, at, cutoff = name.partition("@")
    if not at or not cutoff.isdecimal() or not int(cutoff):
        raise ConfigError(f"metric {name!r}: expected a name and a cutoff such as ndcg@10; known names are: {', '.join(METRICS)}")
    return metric_of(noun), int(cutoff)


def values_over_seeds(runs: Sequence[Run], metrics: Sequence[str]) -> dict[str, MetricArray]:
    """metric -> float64 (N,): each case's mean over `runs`, the seeds of one model, in the order of the split.

    Raises:
        ArtifactError: ranks that are missing, unreadable, or not those of the record beside them.
        ConfigError: an unknown metric.
    """
    parsed = {name: parse_metric(name) for name in metrics}
    sums = {name: np.zeros(runs[0][1].cases) for name in metrics}
    for path, record in runs:
        better, tied = read_ranks(path)
        if len(better) != record.cases:
            raise ArtifactError(f"{path}: {record.cases} cases, but {len(better)} ranks beside them; run it again")
        _refuse_foreign_ranks(path, record, better, tied)
        for name, (metric, k) in parsed.items():
            sums[name] += metric(better, tied, k)
    return {name: total / len(runs) for name, total in sums.items()}


def one_split(runs: Sequence[Run], purpose: str) -> None:
    """Raises DataError: the runs are not of one split; lists the files of each."""
    files: dict[tuple[str, str, int], list[str]] = {}
    for path, record in runs:
        files.setdefault((record.protocol, record.split_hash, record.cases), []).append(str(path))
    if len(files) > 1:
        listed = "; ".join(f"{protocol} {digest[:12]} with {cases} cases: {', '.join(paths)}" for (protocol, digest, cases), paths in files.items())
        raise DataError(f"{purpose}: these runs are not of one split, their figures cannot be compared: {listed}. Move the stale ones away or run them again")


def _refuse_foreign_ranks(path: Path, record: RunRecord, better: IntArray, tied: IntArray) -> None:
    for name, stated in record.metrics.items():
        if not len(better) or name.partition("@")[0] not in METRICS:
            continue
        metric, k = parse_metric(name)
        found = float(metric(better, tied, k).mean())
        if abs(found - stated) > 1e-6:
            raise ArtifactError(f"{path}: the record says {name} {stated:.6f}, its ranks give {found:.6f}: the two files are not of one run; run it again")
