"""Records of models that have a file and a command of their own: one evaluation of one scorer, as it stands on a board."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.board_training import Loaded, Provenance
from pipelines.progress import RichReporter
from recsys.errors import ArtifactError
from recsys.evaluation.run_record import RunRecord, read_ranks, read_run, write_run
from recsys.training.loop import Progress
from recsys.training.memory import peak_mb

if TYPE_CHECKING:
    from recsys.data.catalog import ItemCatalog
    from recsys.data.split import Cases, Split
    from recsys.evaluation.evaluate import Evaluation
    from recsys.types import BoolArray, Scorer

CUTOFFS = (5, 10, 20)
CATEGORIES = 8
"""Largest categories that a record keeps apart."""


@dataclass(frozen=True)
class Training:
    """What a record says of how a model came to be. curve: one dict an epoch.  capped: what ended it early, in words."""

    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    capped: str | None = None
    parameters: int = 0
    peak_mb: float = 0.0
    spaces: Mapping[str, str] = field(default_factory=dict)


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


def is_recorded(path: Path, identity: Identity, split_hash: str) -> bool:
    """A readable record with its ranks, of this very split and of equal settings."""
    if not path.is_file():
        return False
    try:
        record = read_run(path)
        read_ranks(path)
        return record.split_hash == split_hash and record.config == identity.config
    except ArtifactError:
        return False


def record_run(
    folder: Path, identity: Identity, loaded: Loaded, scorer: Scorer, training: Training, provenance: Provenance, *,
    cases: Cases | None = None, protocol: str = "", candidates: BoolArray | None = None, costly: bool = False,
    more_slices: Mapping[str, Mapping[str, float]] | None = None,
) -> tuple[RunRecord, Evaluation]:  # fmt: skip
    """Rank the catalogue for `cases` (None: the test cases) and write the record into `folder`.

    protocol: of the cases, where they are not the split's test cases.  costly: ranked once, with its time taken; else the time is
    of a pass of its own without lists, and a ranking without any mask and one of the validation cases follow.
    """
    from recsys.evaluation.evaluate import evaluate

    split = loaded.split
    cases = split.test if cases is None else cases
    started = time.perf_counter()
    if not costly:
        evaluate(scorer, cases, ks=(10,), metrics=("ndcg",), lists=False, split=split, candidates=candidates)
    else:
        found = evaluate(scorer, cases, ks=CUTOFFS, split=split, candidates=candidates)
    scoring = time.perf_counter() - started
    unmasked = validation = None
    if not costly:
        found = evaluate(scorer, cases, ks=CUTOFFS, split=split, candidates=candidates)
        unmasked = evaluate(scorer, cases, ks=CUTOFFS, masked=False, split=split, candidates=candidates)
        validation = evaluate(scorer, split.validation, ks=(10,), split=split)
    record = RunRecord(
        dataset=identity.dataset,
        protocol=protocol or split.protocol,
        split_hash=split.digest,
        model=identity.model,
        label=identity.label,
        seed=identity.seed,
        config=identity.config,
        cases=len(cases),
        metrics=_means(found),
        unmasked=_means(unmasked),
        validation=_means(validation),
        slices={**slices(found, split, cases, loaded.catalog), **{name: dict(values) for name, values in (more_slices or {}).items()}},
        beyond=_beyond(found, split, cases, loaded.catalog),
        data=loaded.counts,
        parameters=training.parameters,
        spaces=dict(training.spaces),
        epochs=len(training.curve),
        best_epoch=training.best_epoch,
        curve=training.curve,
        train_seconds=round(training.seconds, 2),
        inference_ms_per_user=round(1000 * scoring / max(1, len(cases)), 4),
        peak_rss_mb=round(max(peak_mb(), training.peak_mb), 1),
        threads=provenance.threads,
        capped=training.capped,
        commit=provenance.commit,
        command=identity.command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_run(folder, record, found.better, found.tied)
    return record, found


def slices(found: Evaluation, split: Split, cases: Cases, catalog: ItemCatalog) -> dict[str, dict[str, float | None]]:
    """By popularity of the target, length of the history and the largest categories of the target, as boards name them."""
    from recsys.evaluation.slices import category_slices, history_slices, parts_of, popularity_slices

    masks = popularity_slices(found.targets, split.item_counts())
    masks |= {f"history {name}": mask for name, mask in history_slices(cases.inputs.lengths).items()}
    categories = category_slices(found.targets, catalog.categories()).items()
    masks |= {f"category {name}": mask for name, mask in sorted(categories, key=lambda c: -int(c[1].sum()))[:CATEGORIES]}
    return {name: {"count": part.count, "recall@10": part.mean("recall@10"), "ndcg@10": part.mean("ndcg@10")} for name, part in parts_of(found, masks).items()}


@contextmanager
def told(label: str) -> Iterator[Progress]:
    """A bar of epochs with the numbers of the last one; lines where the output is a file."""
    console = Console(stderr=True)
    with RichReporter(console).task(label, "epochs") as advance:

        def progress(done: int, total: int, numbers: Mapping[str, float]) -> None:
            note = " ".join(f"{key} {value:.4f}" for key, value in numbers.items() if key != "epoch")
            advance(done, total, note)
            if not console.is_terminal:
                console.print(f"  {label} epoch {done}/{total} {note}", soft_wrap=True)

        yield progress


def some_cases(cases: Cases, count: int | None) -> Cases:
    """Evenly spread over the cases; None: all."""
    import numpy as np

    if count is None or count >= len(cases):
        return cases
    return cases_at(cases, np.linspace(0, len(cases) - 1, count).astype(np.int64).tolist())


def cases_at(cases: Cases, rows: list[int]) -> Cases:
    """The cases of these rows, in their order."""
    return type(cases).of_rows([(int(cases.user_nums[row]), cases.inputs[row], cases.seen[row], int(cases.targets[row])) for row in rows])


def _means(found: Evaluation | None) -> dict[str, float]:
    return {} if found is None else {metric: found.mean(metric) for metric in found.per_user}


def _beyond(found: Evaluation, split: Split, cases: Cases, catalog: ItemCatalog) -> dict[str, float | None]:
    from recsys.evaluation.beyond_accuracy import beyond_accuracy
    from recsys.evaluation.calibration import CategoryShares

    assert found.lists is not None
    shares = CategoryShares(catalog.categories())
    return dict(beyond_accuracy(found.lists, 10, n_candidates=found.n_candidates, histories=cases.inputs, item_counts=split.item_counts(), shares=shares))
