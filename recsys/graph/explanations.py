"""`explain`: ranked labels and an explanation of each text, by any Generator; a table that is kept and shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from recsys.errors import ConfigError, DataError
from recsys.generation.generator import Generator
from recsys.generation.progress import Progress, Report
from recsys.generation.validated import Validated, generate_validated
from recsys.graph.tape_answers import ExplainedFormat, ScoresFormat, WhyFormat
from recsys.graph.tape_prompt import ExplainTask
from recsys.types import FloatArray, IntArray

OK, NO_TEXT, MISSING = "ok", "no text", "missing"
SCHEMA: dict[str, Any] = {"item_id": pl.String, "labels": pl.List(pl.String), "explanation": pl.String, "status": pl.String, "tries": pl.Int64}


@dataclass(frozen=True)
class Explanations:
    """table: a row a text, columns of `SCHEMA`. `labels`: the likeliest first, empty where there are none; `explanation`: "" likewise;
    `status`: "ok", "no text", or "missing: <reason>"; `tries`: how often the model was asked for the explanation.
    scores: float32 (n, labels), log-probabilities of the labels, NaN where there are none; None where labels were written.
    prompt_tokens, completion_tokens: as they were when answered; answers of the cache count too.
    """

    table: pl.DataFrame
    scores: FloatArray | None
    retried: int
    prompt_tokens: int
    completion_tokens: int

    def __len__(self) -> int:
        return len(self.table)

    @property
    def missing(self) -> dict[str, int]:
        """How many texts are not "ok" for each reason, the most frequent first."""
        return dict(Counter(status for status in self.table["status"].to_list() if status != OK).most_common())

    def ranks(self, labels: Sequence[str], top: int) -> IntArray:
        """int64 (n, top): rows of `labels`, the likeliest first, -1 from where there are no more. Raises DataError: a label not among them."""
        number = {label: row for row, label in enumerate(labels)}
        found = np.full((len(self), top), -1, dtype=np.int64)
        for row, ranked in enumerate(self.table["labels"].to_list()):
            if unknown := [label for label in ranked if label not in number]:
                raise DataError(f"label {unknown[0]!r} of row {row} is none of: {', '.join(labels)}")
            chosen = [number[label] for label in ranked[:top]]
            found[row, : len(chosen)] = chosen
        return found


def explain(
    task: ExplainTask, ids: Sequence[str], texts: Sequence[str], writer: Generator, *, ranker: Generator | None = None, report: Report | None = None
) -> Explanations:
    """Ask about each text; an unusable answer is asked for once more, then it is missing, and the others go on.

    ranker: gives the likelihood of each of `task.labels` (`LikelihoodRanker`, or its answers from a file): the labels are ranked by
    it, and `writer` explains the likeliest. Without one, `writer` writes both (models from some billion parameters on).
    report: told of both passes together.

    Raises:
        What `Generator.generate` raises; never for what a model wrote.
    """
    if len(ids) != len(texts):
        raise DataError(f"{len(ids)} ids for {len(texts)} texts")
    rows = [row for row, text in enumerate(texts) if text.strip()]
    total = Progress(len(rows) * (1 if ranker is None else 2), report)
    n, scores = len(texts), None
    labels: list[tuple[str, ...]] = [()] * n
    explanations, status, tries = [""] * n, [NO_TEXT] * n, [0] * n
    passes: list[Validated[Any]] = []
    if ranker is None:
        both = generate_validated(writer, [task.ask(texts[row]) for row in rows], ExplainedFormat(task), on_done=total)
        passes.append(both)
        for row, written in zip(rows, both.answers, strict=True):
            status[row], tries[row] = _status(written.reason), written.tries
            if written.value is not None:
                labels[row], explanations[row] = written.value.labels, written.value.explanation
    else:
        ranked = generate_validated(ranker, [task.ask_label(texts[row]) for row in rows], ScoresFormat(len(task.labels)), on_done=total, retries=0)
        told: list[list[float] | None] = [None] * n
        for row, answer in zip(rows, ranked.answers, strict=True):
            told[row] = answer.value
        scores, labels = ranked_labels(task, told)
        why = generate_validated(writer, [task.ask_why(texts[row], labels[row][0] if labels[row] else None) for row in rows], WhyFormat(), on_done=total)
        passes += [ranked, why]
        for row, of_label, of_why in zip(rows, ranked.answers, why.answers, strict=True):
            explanations[row] = of_why.value or ""
            status[row], tries[row] = _status(of_label.reason or of_why.reason), of_why.tries
    table = pl.DataFrame(
        {"item_id": list(ids), "labels": [list(ranked) for ranked in labels], "explanation": explanations, "status": status, "tries": tries}, schema=SCHEMA
    )
    counts = [(found.retried, found.prompt_tokens, found.completion_tokens) for found in passes]
    retried, prompt_tokens, completion_tokens = (sum(column) for column in zip(*counts, strict=True))
    return Explanations(table, scores, retried, prompt_tokens, completion_tokens)


def ranked_labels(task: ExplainTask, scores: Sequence[Sequence[float] | None]) -> tuple[FloatArray, list[tuple[str, ...]]]:
    """Log-likelihoods of `task.labels`, a row a text -> calibrated float32 (n, labels), NaN where there are none, and the `task.top` likeliest."""
    raw = np.full((len(scores), len(task.labels)), np.nan, dtype=np.float32)
    for row, values in enumerate(scores):
        if values is not None:
            raw[row] = values
    found = calibrated(raw)
    order = np.argsort(-found, axis=1, kind="stable")[:, : task.top]
    known = np.asarray(np.isfinite(found).all(axis=1))
    return found, [tuple(task.labels[place] for place in order[row].tolist()) if known[row] else () for row in range(len(found))]


def calibrated(scores: FloatArray) -> FloatArray:
    """float32 (n, C) log-likelihoods of C options, rows of NaN where there are none -> log-probabilities among the options, less
    the logarithm of each option's mean probability: a small model likes some words whatever the text says (batch calibration,
    Zhou et al., ICLR 2024). No label of any text is looked at."""
    known = np.isfinite(scores).all(axis=1)
    if not known.any():
        return scores
    logits = scores[known].astype(np.float64)
    logits -= np.logaddexp.reduce(logits, axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).mean(axis=0))
    out = np.full_like(scores, np.nan)
    out[known] = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return out


def read_explanations(path: Any) -> pl.DataFrame:
    """A table that was kept. Raises ConfigError: not one."""
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"{path}: not a table of explanations: {error}") from None
    if dict(frame.schema) != SCHEMA:
        raise ConfigError(f"{path}: not a table of explanations: columns {', '.join(frame.columns)}, expected {', '.join(SCHEMA)}")
    return frame


def _status(reason: str) -> str:
    return f"{MISSING}: {reason}" if reason else OK
