"""Stage `evaluate` of a nightly run: champion and challenger, user by user, on the newest window, the whole catalogue ranked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from pipelines import embed, ingest, rank, split
from pipelines.stage import Inputs, Surroundings
from pipelines.window import window_cases, window_users
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import write_json
from recsys.config import Config
from recsys.data.sequences import Sequences
from recsys.data.split import Split
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import DataError
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.gate import Pair
from recsys.evaluation.metrics import MetricArray
from recsys.heads.fusion import FusedRanker
from recsys.models.popularity import Popularity
from recsys.rng import numpy_generator
from recsys.serving.bundle import load_bundle
from recsys.types import BoolArray, FloatArray, IntArray, Queries, Scorer

VERSION = 1
CHALLENGER, CHAMPION = "challenger", "champion"
FIGURES = "users.safetensors"
METRIC = "ndcg@10"


class ContestOptions(Config):
    cases_a_user: Annotated[int, Field(ge=1)] = 20
    """Events of a user in the window that are predicted, the first ones; a user counts once, with their mean."""
    users: Annotated[int, Field(ge=1)] = 20_000
    """Users at most, drawn by `seed`."""
    cold_at_most: Annotated[int, Field(ge=0)] = 0
    """An item with at most so many training events is cold."""
    fewest_users: Annotated[int, Field(ge=1)] = 1
    """With fewer users the run stops: the window is too thin to judge by."""
    seed: int = 0


class ContestConfig(ContestOptions):
    start: int
    """Of the newest window, Unix seconds UTC."""


@dataclass(frozen=True)
class Champion:
    """The version to beat, as the night found it. trained_until: Unix seconds; None where its release did not say."""

    name: str
    version: str
    key: str
    trained_until: int | None
    bundle: Callable[[], Path]

    @property
    def identity(self) -> str:
        return f"{self.name}/{self.version}/{self.key}"


def run(config: ContestConfig, inputs: Inputs, folder: Path, surroundings: Surroundings, *, champion: Champion | None) -> Mapping[str, Any]:
    data_split, interactions = split.load(inputs["split"]), ingest.load(inputs["data"]).interactions
    users = window_users(interactions, config.start)
    if len(users) > config.users:
        users = np.sort(numpy_generator(config.seed, "contest").choice(users, config.users, replace=False))
    if len(users) < config.fewest_users:
        raise DataError(f"{len(users)} users have an event in the window and one before it, {config.fewest_users} are needed to judge by")
    cases = window_cases(interactions, config.start, users, most=config.cases_a_user)
    incomparable = "" if champion is None else _incomparable(champion, config)
    contestants: dict[str, Callable[[], Scorer]] = {"popularity": lambda: Popularity.fit(data_split), CHALLENGER: lambda: rank.load(inputs["rank"])}
    if champion is not None and not incomparable:
        tables = {a.manifest.metadata["name"]: embed.load(a) for role, a in inputs.items() if role.startswith("table:")}
        bundle = champion.bundle
        contestants[CHAMPION] = lambda: grown(bundle(), data_split, tables)
    cold = data_split.item_counts()[cases.targets] <= config.cold_at_most
    figures: dict[str, MetricArray] = {}
    rows = []
    with surroundings.reporter.task("champion and challenger", "models") as advance:
        for done, (name, make) in enumerate(contestants.items()):
            advance(done, len(contestants), name)
            found = evaluate(make(), cases, ks=(10,), metrics=("ndcg", "recall"), lists=False, split=data_split)
            row: dict[str, Any] = {"name": name, "users": len(users), "cases": len(cases), "cold_cases": int(cold.sum())}
            for part, mask in (("", np.ones(len(cases), dtype=np.bool_)), ("cold_", cold)):
                for metric in (METRIC, "recall@10"):
                    values = by_user(found.values(metric)[mask], cases.user_nums[mask])
                    row[f"{part}{metric}"] = float(values.mean()) if len(values) else None
                    if metric == METRIC:
                        figures[f"{part or 'warm_'}{name}"] = values
            rows.append(row)
        advance(len(contestants), len(contestants), "")
    save_file(figures, folder / FIGURES)
    write_json(folder / "board.json", rows)
    write_json(folder / "contest.json", {"champion": champion.version if champion else None, "incomparable": incomparable, "window_start": config.start})
    return {
        "users": len(users),
        "cases": len(cases),
        "cold_cases": int(cold.sum()),
        "champion": champion.version if champion else "none",
        **{f"{row['name']}_ndcg_at_10": round(row[METRIC], 6) for row in rows},
    }


def is_contest(evaluation: Artifact) -> bool:
    return FIGURES in evaluation.manifest.files


def pairs(artifact: Artifact) -> tuple[Pair | None, Pair | None]:
    """NDCG@10 of both models by user: warm (all targets), cold. None where there was no champion, or none that could be compared."""
    figures = load_file(artifact.file(FIGURES))
    if f"warm_{CHAMPION}" not in figures:
        return None, None
    warm, cold = (Pair(figures[f"{part}_{CHALLENGER}"], figures[f"{part}_{CHAMPION}"]) for part in ("warm", "cold"))
    return warm, cold


def by_user(values: MetricArray, user_nums: IntArray) -> MetricArray:
    """float64 (U,): the mean of each user that has cases, by ascending user_num."""
    _, places = np.unique(user_nums, return_inverse=True)
    return np.bincount(places, weights=values) / np.bincount(places) if len(values) else np.zeros(0)


def grown(bundle: Path, data_split: Split, tables: Mapping[str, EmbeddingTable]) -> Scorer:
    """The ranker of a bundle over the items of a newer split, as the service would answer tonight: items that it does not know are
    appended by their vectors, where it has a signal for them, and cannot be scored otherwise.

    Raises:
        SpaceMismatchError: the bundle's items are not the beginning of the split's.
    """
    loaded = load_bundle(bundle)
    known = len(loaded.catalog)
    data_split.items.require_prefix(known, loaded.catalog.items.digest, what=f"the champion {loaded.name} {loaded.version}")
    ranker = loaded.ranker
    assert isinstance(ranker, FusedRanker)
    more = Vocabulary(data_split.items.ids[known:])
    if not len(more):
        return ranker
    usable = {name for name, space in ranker.spaces.items() if name in tables and tables[name].space_id == space}
    if not usable or not set(ranker.spaces) <= set(tables):
        return _Unaware(ranker, len(data_split.items))
    # A graph is fitted anew every night: in the champion's own there is no vector of an item that came later.
    return ranker.with_items({name: tables[name].aligned_to(more) * np.float32(name in usable) for name in ranker.spaces})


class _Unaware:
    """A scorer of the first items of a longer catalogue; the others cannot be scored, and in a history they are not read."""

    def __init__(self, scorer: Scorer, n_items: int) -> None:
        self._scorer, self.n_items = scorer, n_items

    def scorable_items(self) -> BoolArray:
        return np.concatenate([self._scorer.scorable_items(), np.zeros(self.n_items - self._scorer.n_items, dtype=np.bool_)])

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        known = [history[history < self._scorer.n_items] for history in queries.histories]
        return self._scorer.score(Queries(queries.user_nums, Sequences.of_rows(known)), item_nums)


def _incomparable(champion: Champion, config: ContestConfig) -> str:
    if champion.trained_until is None:
        return f"the champion (version {champion.version}) does not say until when its training data goes; compare by hand, then move the alias"
    if champion.trained_until > config.start:
        return f"the champion (version {champion.version}) was trained on events of this window; run for a newer day"
    return ""
