"""What every Scorer keeps, whatever it is: shapes, finite values, the order of columns, batch equals single, unknown users."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.artifacts.atomic import read_json, write_json
from recsys.data.catalog import ItemCatalog
from recsys.data.split import Split
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import SpaceMismatchError
from recsys.evaluation.evaluate import evaluate
from recsys.graph.build import GraphConfig, build_graph
from recsys.graph.config import GnnConfig, GraphEncoderConfig, LinkConfig
from recsys.graph.link_prediction import fit_graph
from recsys.graph.scorer import GraphScorer
from recsys.heads.config import FusionConfig
from recsys.heads.fusion import fit_ranker
from recsys.models.ease import Ease, EaseConfig
from recsys.models.itemknn import ItemKNN, ItemKNNConfig
from recsys.models.lightgcn import LightGCNConfig, fit_lightgcn
from recsys.models.popularity import Popularity
from recsys.models.sasrec import SasRecConfig
from recsys.models.text_nearest import TextNearest
from recsys.training.config import TrainingConfig
from recsys.types import UNKNOWN_NUM, KnowsItems, Queries, Scorer


def text_nearest(split: Split) -> Scorer:
    return TextNearest(np.random.default_rng(0).standard_normal((split.n_items, 8)).astype(np.float32), "random")


def sasrec(split: Split) -> Scorer:
    config = FusionConfig(encoder=SasRecConfig(dim=8, max_length=10), training=TrainingConfig(epochs=2))
    return fit_ranker(config, split, {}, seed=0, validate=lambda scorer: 0.0).ranker


def lightgcn(split: Split) -> Scorer:
    config = LightGCNConfig(dim=8, training=TrainingConfig(epochs=2, batch_size=64))
    return fit_lightgcn(config, split, seed=0, validate=lambda scorer: 0.0).scorer


def graph(split: Split, *, users: bool = False) -> Scorer:
    values = np.random.default_rng(0).standard_normal((split.n_items, 8)).astype(np.float32)
    space = EmbeddingSpace(
        model="made", revision="", tokenizer="", template="", max_length=1, layer=0, pooling="", attention="", normalise=False, dtype="float32", dim=8
    )
    catalog = ItemCatalog(pl.DataFrame({"item_id": list(split.items.ids)}))
    data = build_graph(GraphConfig(), split, catalog, {"made": EmbeddingTable(values, split.items, space)})
    link = LinkConfig(training=TrainingConfig(epochs=2, batch_size=64))
    config = GraphEncoderConfig(users=users, dim=8, gnn=GnnConfig(kind="sage", hidden=8), link=link)
    return fit_graph(config, data, split, seed=0, validate=lambda scorer: 0.0).model.scorer()


MAKERS: dict[str, Callable[[Split], Scorer]] = {
    "popularity": Popularity.fit,
    "itemknn": lambda split: ItemKNN.fit(ItemKNNConfig(), split),
    "ease": lambda split: Ease.fit(EaseConfig(), split),
    "text_nearest": text_nearest,
    "sasrec": sasrec,
    "lightgcn": lightgcn,
    "graph": graph,
    "graph_users": partial(graph, users=True),
}
KNOW_USERS = {"lightgcn", "graph_users"}
"""Models with a vector of each training user's own; the others read the history alone."""


@pytest.fixture(params=MAKERS)
def scorer(request: pytest.FixtureRequest, tiny_cold_split: Split) -> Scorer:
    return MAKERS[request.param](tiny_cold_split)


def test_the_contract(scorer: Scorer, tiny_cold_split: Split) -> None:
    split = tiny_cold_split
    queries = split.test.queries()
    everything = np.arange(split.n_items)
    scorable = scorer.scorable_items()
    scores = scorer.score(queries, everything)
    assert scorer.n_items == split.n_items
    assert scorable.shape == (split.n_items,) and scorable.dtype == np.bool_
    assert scores.shape == (len(queries), split.n_items) and scores.dtype == np.float32
    assert np.isfinite(scores[:, scorable]).all()
    some = np.flatnonzero(scorable)[::-1].copy()
    np.testing.assert_allclose(scorer.score(queries, some), scores[:, some], atol=1e-5)
    alone = np.concatenate([scorer.score(queries.slice(i, i + 1), everything) for i in range(len(queries))])
    np.testing.assert_allclose(alone[:, scorable], scores[:, scorable], atol=1e-5)


def test_a_split_of_as_many_other_items_is_refused(scorer: Scorer, tiny_cold_split: Split) -> None:
    """The same items in another order: every number is valid, and every score would belong to another item."""
    split = tiny_cold_split
    turned = replace(split, items=Vocabulary(split.items.ids[::-1]))
    evaluate(scorer, split.test, split=split)
    if isinstance(scorer, TextNearest):
        assert not isinstance(scorer, KnowsItems)  # vectors in rows, with no word of whose they are
        return
    with pytest.raises(SpaceMismatchError, match=rf"was fitted on another vocabulary \(12 items, {split.items.digest[:12]}\).*{turned.items.digest[:12]}"):
        evaluate(scorer, turned.test, split=turned)


@pytest.mark.parametrize("name", ["sasrec", "lightgcn"])
def test_the_vocabulary_is_kept_in_the_saved_model(name: str, tiny_cold_split: Split, tmp_path: Path) -> None:
    scorer = MAKERS[name](tiny_cold_split)
    scorer.save(tmp_path)
    assert type(scorer).load(tmp_path).item_digest == scorer.item_digest == tiny_cold_split.items.digest
    (facts,) = tmp_path.glob("*.json")
    write_json(facts, {key: value for key, value in read_json(facts).items() if key != "item_digest"})
    older = type(scorer).load(tmp_path)
    assert older.item_digest is None
    evaluate(older, tiny_cold_split.test, split=tiny_cold_split)


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - KNOW_USERS))
def test_known_and_unknown_users_are_scored_by_history_alone(name: str, tiny_cold_split: Split) -> None:
    scorer, history = MAKERS[name](tiny_cold_split), tiny_cold_split.test.inputs[0]
    everything, scorable = np.arange(tiny_cold_split.n_items), scorer.scorable_items()
    known = scorer.score(Queries(tiny_cold_split.test.user_nums[:1], [history]), everything)
    unknown = scorer.score(Queries(np.array([UNKNOWN_NUM]), [history]), everything)
    np.testing.assert_allclose(unknown[:, scorable], known[:, scorable], atol=1e-5)


@pytest.mark.parametrize("name", sorted(KNOW_USERS))
def test_a_known_user_keeps_its_own_vector(name: str, tiny_cold_split: Split) -> None:
    scorer, histories = MAKERS[name](tiny_cold_split), [tiny_cold_split.test.inputs[row] for row in (0, 4)]
    everything, scorable = np.arange(tiny_cold_split.n_items), scorer.scorable_items()
    known = scorer.score(Queries(tiny_cold_split.test.user_nums[[0, 0]], histories), everything)
    np.testing.assert_allclose(known[0, scorable], known[1, scorable], atol=1e-5)
    unknown = scorer.score(Queries(np.array([UNKNOWN_NUM, UNKNOWN_NUM]), histories), everything)
    assert np.abs(unknown[0, scorable] - unknown[1, scorable]).max() > 1e-5


def test_a_user_never_seen_gets_finite_scores_with_and_without_a_history(scorer: Scorer, tiny_cold_split: Split) -> None:
    history = tiny_cold_split.test.inputs[0]
    everything, scorable = np.arange(tiny_cold_split.n_items), scorer.scorable_items()
    for rows in (history, history[:0]):
        assert np.isfinite(scorer.score(Queries.of_history(rows), everything)[:, scorable]).all()


def test_items_without_training_interactions_are_scorable_by_text_alone(scorer: Scorer, tiny_cold_split: Split) -> None:
    cold = tiny_cold_split.item_counts() == 0
    assert cold.any()
    assert scorer.scorable_items()[cold].all() == isinstance(scorer, TextNearest | GraphScorer)
    assert scorer.scorable_items()[~cold].all()
