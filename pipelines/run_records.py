"""One evaluation of one fitted model as a record on a board: of `recsys board`, the cold board and models with a file of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.board_training import Loaded, Provenance
from recsys.errors import ArtifactError, ConfigError
from recsys.evaluation.run_record import RunRecord, read_ranks, read_run, write_run
from recsys.training.memory import peak_mb

if TYPE_CHECKING:
    from pipelines.baselines import Fitted
    from recsys.data.catalog import ItemCatalog
    from recsys.data.split import Split
    from recsys.evaluation.evaluate import Evaluation

CUTOFFS = (5, 10, 20)
CATEGORIES = 8
"""Largest categories that a record keeps apart."""


@dataclass(frozen=True)
class Identity:
    """Which model, as boards know it. config: its settings, without machine paths."""

    dataset: str
    model: str
    label: str
    seed: int
    config: dict[str, Any]
    command: str

    @property
    def stem(self) -> str:
        return f"{self.model}-seed{self.seed}"


def is_recorded(path: Path, split_hash: str, same: Callable[[Mapping[str, Any]], bool]) -> bool:
    """A readable record with its ranks, of this very split. same: whether the settings that it states are those wanted; they are
    compared as they are read: a field that was added since, at its default, is no change."""
    if not path.is_file():
        return False
    try:
        record = read_run(path)
        read_ranks(path)
        return record.split_hash == split_hash and same(record.config)
    except (ConfigError, ArtifactError):
        return False


def record_run(folder: Path, identity: Identity, loaded: Loaded, fitted: Fitted, provenance: Provenance, *, costly: bool = False) -> RunRecord:
    """Rank the catalogue for the test cases and write the record into `folder`.

    costly: the cases are ranked once, with its time taken; else the time is of a pass of its own without lists, and a ranking
    without any mask and one of the validation cases follow.
    """
    from recsys.evaluation.evaluate import evaluate

    split = loaded.split
    more: dict[str, Any] = {}
    started = time.perf_counter()
    if costly:
        test = evaluate(fitted.scorer, split.test, ks=CUTOFFS, split=split)
        scoring = time.perf_counter() - started
    else:
        evaluate(fitted.scorer, split.test, ks=(10,), metrics=("ndcg",), lists=False, split=split)
        scoring = time.perf_counter() - started
        test = evaluate(fitted.scorer, split.test, ks=CUTOFFS, split=split)
        more = {
            "unmasked": means(evaluate(fitted.scorer, split.test, ks=CUTOFFS, masked=False, split=split)),
            "validation": means(evaluate(fitted.scorer, split.validation, ks=(10,), split=split)),
        }
    more |= {"slices": _slices(test, split, loaded.catalog), "beyond": _beyond(test, split, loaded.catalog)}
    return write_record(folder, identity, loaded, fitted, provenance, test, scoring, **more)


def write_record(
    folder: Path, identity: Identity, loaded: Loaded, fitted: Fitted, provenance: Provenance, found: Evaluation, seconds: float, protocol: str = "", **more: Any
) -> RunRecord:
    """The record of `found`, whose cases took `seconds`, with its ranks. protocol: of the cases, where it is not the split's.  more: its other fields."""
    record = RunRecord(
        dataset=identity.dataset,
        protocol=protocol or loaded.split.protocol,
        split_hash=loaded.split.digest,
        model=identity.model,
        label=identity.label,
        seed=identity.seed,
        config=identity.config,
        cases=len(found.better),
        metrics=means(found),
        data=loaded.counts,
        parameters=fitted.parameters,
        spaces=dict(fitted.spaces),
        epochs=len(fitted.curve),
        best_epoch=fitted.best_epoch,
        curve=fitted.curve,
        train_seconds=round(fitted.seconds, 2),
        inference_ms_per_user=round(1000 * seconds / max(1, len(found.better)), 4),
        peak_rss_mb=round(max(peak_mb(), fitted.peak_mb), 1),
        threads=provenance.threads,
        capped=fitted.capped,
        commit=provenance.commit,
        command=identity.command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    )
    write_run(folder, record, found.better, found.tied)
    return record


def means(found: Evaluation) -> dict[str, float]:
    return {metric: found.mean(metric) for metric in found.per_user}


def _slices(test: Evaluation, split: Split, catalog: ItemCatalog) -> dict[str, dict[str, float | None]]:
    """By popularity of the target ("cold", ...), length of the history ("history 6–10") and the largest categories of the
    target ("category Drama")."""
    from recsys.evaluation.slices import category_slices, history_slices, parts_of, popularity_slices

    masks = popularity_slices(test.targets, split.item_counts())
    masks |= {f"history {name}": mask for name, mask in history_slices(split.test.inputs.lengths).items()}
    categories = category_slices(test.targets, catalog.categories()).items()
    masks |= {f"category {name}": mask for name, mask in sorted(categories, key=lambda c: -int(c[1].sum()))[:CATEGORIES]}
    return {name: {"count": part.count, "recall@10": part.mean("recall@10"), "ndcg@10": part.mean("ndcg@10")} for name, part in parts_of(test, masks).items()}


def _beyond(test: Evaluation, split: Split, catalog: ItemCatalog) -> dict[str, float | None]:
    from recsys.evaluation.beyond_accuracy import beyond_accuracy
    from recsys.evaluation.calibration import CategoryShares

    assert test.lists is not None
    shares = CategoryShares(catalog.categories())
    return dict(beyond_accuracy(test.lists, 10, n_candidates=test.n_candidates, histories=split.test.inputs, item_counts=split.item_counts(), shares=shares))
