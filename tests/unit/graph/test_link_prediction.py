"""Planted communities are found, new items are placed without training, and a fitted model comes back from files."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys.artifacts.atomic import read_json, write_json
from recsys.data.catalog import ItemCatalog
from recsys.data.interactions import Interactions
from recsys.data.split import Split, SplitConfig, make_split
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import ArtifactError, ConfigError, DataError, LeakError
from recsys.evaluation.evaluate import evaluate
from recsys.graph.build import GraphConfig, build_graph
from recsys.graph.config import GraphEncoderConfig
from recsys.graph.edges import Edges
from recsys.graph.link_prediction import GraphFit, fit_graph
from recsys.graph.model import GraphModel
from recsys.graph.text_neighbours import TextNeighbourConfig, centred, nearest_edges
from recsys.types import UNKNOWN_NUM, Queries, Scorer

GROUPS, EACH, DIM = 4, 15, 8
ITEMS = GROUPS * EACH


@pytest.fixture(scope="module")
def world() -> tuple[Interactions, ItemCatalog, EmbeddingTable]:
    """60 items in four communities by i % 4; each of 80 users meets 8 of one. Texts tell the community, in noise; the last item has none."""
    generator = np.random.default_rng(0)
    events = []
    for user in range(80):
        own = np.arange(user % GROUPS, ITEMS, GROUPS)
        events += [(f"u{user}", f"i{item}", time) for time, item in enumerate(generator.choice(own, 8, replace=False).tolist())]
    catalog = ItemCatalog(pl.DataFrame({"item_id": [f"i{item}" for item in range(ITEMS)]}))
    interactions = Interactions.of_frame(pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row"), catalog.items)
    values = np.eye(GROUPS, DIM)[np.arange(ITEMS) % GROUPS] + 0.45 * generator.standard_normal((ITEMS, DIM))
    values[ITEMS - 1] = 0
    space = EmbeddingSpace(
        model="made", revision="", tokenizer="", template="", max_length=1, layer=0, pooling="", attention="", normalise=False, dtype="float32", dim=DIM
    )
    return interactions, catalog, EmbeddingTable(values.astype(np.float32), catalog.items, space)


World = tuple[Interactions, ItemCatalog, EmbeddingTable]


def config_of(kind: str, **options: object) -> GraphEncoderConfig:
    link = {"training": {"epochs": 8, "batch_size": 64, "learning_rate": 0.01, "validate_every": 4}} | dict(options.pop("link", {}))  # type: ignore[call-overload]
    gnn = {"kind": kind, "layers": 2} | ({"hidden": 16} if kind != "lightgcn" else {}) | dict(options.pop("gnn", {}))  # type: ignore[call-overload]
    return GraphEncoderConfig.parse({"gnn": gnn, "dim": 8, "link": link} | options)


def fitted(config: GraphEncoderConfig, split: Split, world: World, *, seed: int = 0, graph: GraphConfig | None = None, **options: object) -> GraphFit:
    data = build_graph(graph or GraphConfig(), split, world[1], {"made": world[2]})

    def validate(scorer: Scorer) -> float:
        return evaluate(scorer, split.validation, ks=(10,), metrics=("ndcg",), lists=False, split=split).mean("ndcg@10")

    return fit_graph(config, data, split, seed=seed, validate=validate, **options)  # type: ignore[arg-type]


def within(vectors: np.ndarray) -> float:
    """Share of the ten nearest items, by dot product, that are of an item's own community."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest = np.argsort(-scores, axis=1)[:, :10]
    return float((nearest % GROUPS == np.arange(len(vectors))[:, None] % GROUPS).mean())


@pytest.mark.parametrize("features", ["text", "ids"])
@pytest.mark.parametrize("users", [False, True])
@pytest.mark.parametrize("kind", ["gcn", "sage", "gat", "lightgcn"])
def test_planted_communities_are_recovered(kind: str, users: bool, features: str, world: World) -> None:
    split = make_split(SplitConfig(), world[0])
    graph = GraphConfig(text=None) if features == "ids" else GraphConfig()  # IDs have the interactions alone
    model = fitted(config_of(kind, features=features, users=users), split, world, graph=graph).model
    assert within(centred(world[2].values)[:-1]) < 0.7  # what the texts alone tell
    assert within(model.items()[:-1]) > 0.9
    # A community has 15 items, of which a user met 7: its targets are among the 8 others.
    assert evaluate(model.scorer(), split.test, ks=(10,), split=split).mean("recall@10") > 0.75
    queries = Queries(np.array([UNKNOWN_NUM]), [np.array([1, 5, 9])])
    best = np.argsort(-model.scorer().score(queries, np.arange(ITEMS))[0])[:10]
    assert (best % GROUPS == 1).mean() > 0.8


def test_held_out_items_are_placed_by_text_alone(world: World) -> None:
    split = make_split(SplitConfig(protocol="held_out_items", held_out_share=0.2), world[0])
    model = fitted(config_of("sage"), split, world).model
    found = evaluate(model.scorer(), split.cold, ks=(3,), candidates=split.held_out, split=split).mean("recall@3")
    assert found > 0.8 and int(split.held_out.sum()) == 12  # three of a community, by chance 0.25
    ids = fitted(config_of("lightgcn", features="ids"), split, world, graph=GraphConfig(text=None)).model
    assert not ids.scorer().scorable_items()[split.held_out].any() and (ids.items()[split.held_out] == 0).all()


def test_a_drawn_training_finds_them_too(world: World) -> None:
    split = make_split(SplitConfig(), world[0])
    for kind in ("sage", "lightgcn"):
        model = fitted(config_of(kind, link={"full_batch_up_to": 0, "fanouts": (4, 3), "negatives": 20}), split, world).model
        assert within(model.items()[:-1]) > 0.8


def test_all_neighbours_train_as_the_whole_graph_does(world: World) -> None:
    split = make_split(SplitConfig(), world[0])
    training = {"epochs": 3, "batch_size": 64, "learning_rate": 0.01}
    link = {"training": training, "fanouts": (10**6, 10**6), "cold_share": 0.3}
    gnn = {"dropout": 0.0}
    one, two = (fitted(config_of("sage", gnn=gnn, link=link | {"full_batch_up_to": most}), split, world) for most in (0, 10**6))
    for mine, theirs in zip(one.history, two.history, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    np.testing.assert_allclose(one.model.items(), two.model.items(), atol=2e-3)


def test_the_text_beside_what_is_learned(world: World) -> None:
    split = make_split(SplitConfig(), world[0])
    once = {"training": {"epochs": 1}}  # the one that is kept: which of several is chosen with the text
    plain, with_text = (fitted(config_of("sage", skip=skip, link=once), split, world).model for skip in (0.0, 0.5))
    assert with_text.items().shape == (ITEMS, 8 + DIM) and with_text.space.dim == 16 and with_text.space.space_id != plain.space.space_id
    norms = np.linalg.norm(with_text.items(), axis=1)
    np.testing.assert_allclose(norms[:-1], 1.5**0.5, rtol=1e-5)
    np.testing.assert_allclose(with_text.items()[:, :8], plain.items(), atol=1e-5)
    with pytest.raises(ConfigError, match="skip appends the text"):
        config_of("sage", features="ids", skip=0.5)


@pytest.mark.parametrize("kind", ["gcn", "sage", "gat", "lightgcn"])
def test_a_new_item_is_placed_as_if_it_had_been_there(kind: str, world: World) -> None:
    """A held-out item of the graph, given as a new one to a graph without it: equal inputs, equal vector (one layer; with
    more, its neighbours hear of it in the one case and not in the other)."""
    split = make_split(SplitConfig(protocol="held_out_items", held_out_share=0.2), world[0])
    model = fitted(config_of(kind, gnn={"layers": 1}), split, world).model
    item = int(np.flatnonzero(split.held_out)[0])
    sources, targets = model.graph.edge_index.numpy()
    into = targets == item
    # The weights of the graph are scaled; a relation's own are wanted.
    raw = model.graph.weights.numpy()[into] / model.graph.scales["reads_like_made"]
    features = model.inputs[item : item + 1].numpy() / model.inputs.shape[1] ** 0.5
    edges = Edges(sources[into], np.zeros(into.sum(), dtype=np.int64), raw.astype(np.float32))
    np.testing.assert_allclose(model.vectors_of_new({"reads_like_made": edges}, features)[0], model.items()[item], atol=1e-5)


def test_a_new_item_moves_no_other_and_belongs_where_its_text_says(world: World) -> None:
    split = make_split(SplitConfig(), world[0])
    model = fitted(config_of("sage"), split, world).model
    before = model.items().copy()
    features = np.eye(GROUPS, DIM, dtype=np.float32)
    together = centred(np.concatenate([world[2].values, features]), np.arange(ITEMS + GROUPS) < ITEMS)
    edges = nearest_edges(TextNeighbourConfig(neighbours=5), together[:ITEMS], together[ITEMS:])
    vectors = model.vectors_of_new({"reads_like_made": edges}, together[ITEMS:])
    np.testing.assert_array_equal(model.items(), before)
    nearest = np.argsort(-(vectors @ before.T), axis=1)[:, :8]
    assert (nearest % GROUPS == np.arange(GROUPS)[:, None]).mean() > 0.9
    # Without an edge and with one: both have a vector, and it differs.
    alone = model.vectors_of_new({}, together[ITEMS:])
    assert not np.allclose(alone, vectors)
    assert (model.vectors_of_new({}, np.zeros((2, DIM), dtype=np.float32)) == 0).all()


def test_a_new_item_without_id_is_its_neighbours(world: World) -> None:
    split = make_split(SplitConfig(), world[0])
    model = fitted(config_of("lightgcn", features="ids"), split, world).model
    edges = Edges(np.array([0, 4, 8]), np.zeros(3, dtype=np.int64), np.ones(3, dtype=np.float32))
    vectors = model.vectors_of_new({"reads_like_made": edges}, count=2)
    assert (np.argsort(-(model.items() @ vectors[0]))[:8] % GROUPS == 0).mean() > 0.8
    assert (vectors[1] == 0).all()


def test_new_items_that_do_not_fit_are_refused(world: World) -> None:
    model = fitted(config_of("sage", link={"training": {"epochs": 1}}), make_split(SplitConfig(), world[0]), world).model
    one = np.ones((1, DIM), dtype=np.float32)
    with pytest.raises(DataError, match=r"features float32 \(m, 8\) are needed, got none"):
        model.vectors_of_new({})
    with pytest.raises(DataError, match=r"got \(1, 7\)"):
        model.vectors_of_new({}, one[:, :7])
    for source, target in ((ITEMS, 0), (-1, 0), (0, 1)):
        edges = Edges(np.array([source]), np.array([target]), np.ones(1, dtype=np.float32))
        with pytest.raises(DataError, match="'reads_like_made' do not"):
            model.vectors_of_new({"reads_like_made": edges}, one)
    with pytest.raises(DataError, match="no relation 'likes'; it has: meets, reads_like_made"):
        model.vectors_of_new({"likes": edges}, one)


def test_equal_seeds_fit_equal_models_and_a_space_names_what_it_was_made_of(world: World) -> None:
    split = make_split(SplitConfig(), world[0])
    config = config_of("sage", link={"training": {"epochs": 2}})
    one, again, other = (fitted(config, split, world, seed=seed).model for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.items(), again.items())
    assert not np.allclose(one.items(), other.items())
    table = one.table(split.items)
    assert table.space.split_hash == split.digest and world[2].space_id in table.space.template and len(table) == ITEMS
    cold = make_split(SplitConfig(protocol="held_out_items"), world[0])
    models = [
        again,
        other,
        fitted(config_of("gcn", link={"training": {"epochs": 2}}), split, world).model,
        fitted(config, split, world, graph=GraphConfig(text=TextNeighbourConfig(neighbours=3))).model,
        fitted(config, cold, world).model,
    ]
    ids = [model.space.space_id for model in models]
    assert ids[0] == table.space_id and len(set(ids)) == len(ids)


def test_a_killed_training_resumes_to_the_same(world: World, tmp_path: Path) -> None:
    split = make_split(SplitConfig(), world[0])
    config = config_of("lightgcn", features="ids", users=True)
    whole = fitted(config, split, world)

    def kill(done: int, total: int, numbers: dict[str, float]) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(config, split, world, checkpoint=tmp_path, checkpoint_seconds=0.0, progress=kill)
    resumed = fitted(config, split, world, checkpoint=tmp_path)
    np.testing.assert_array_equal(resumed.model.items(), whole.model.items())
    assert [h["loss"] for h in resumed.history] == [h["loss"] for h in whole.history]
    with pytest.raises(ArtifactError):
        fitted(config, split, world, seed=1, checkpoint=tmp_path)


@pytest.mark.parametrize(("features", "users"), [("text", False), ("ids", True)])
def test_files_give_the_model_back(features: str, users: bool, world: World, tmp_path: Path) -> None:
    split = make_split(SplitConfig(), world[0])
    model = fitted(config_of("gcn", features=features, users=users), split, world).model
    model.save(tmp_path)
    loaded = GraphModel.load(tmp_path)
    assert (loaded.config, loaded.space, loaded.item_digest) == (model.config, model.space, split.items.digest)
    queries = split.test.queries().slice(0, 20)
    np.testing.assert_array_equal(loaded.scorer().score(queries, np.arange(ITEMS)), model.scorer().score(queries, np.arange(ITEMS)))
    edges = {"meets": Edges(np.array([3, 7]), np.array([0, 0]), np.array([0.1, 0.2], dtype=np.float32))}
    new = np.ones((1, DIM), dtype=np.float32) if features == "text" else None
    np.testing.assert_array_equal(loaded.vectors_of_new(edges, new, count=1), model.vectors_of_new(edges, new, count=1))
    write_json(tmp_path / "graph_model.json", read_json(tmp_path / "graph_model.json") | {"format": 99})
    with pytest.raises(ArtifactError, match="format 99"):
        GraphModel.load(tmp_path)
    with pytest.raises(ArtifactError, match="no saved graph model"):
        GraphModel.load(tmp_path / "elsewhere")


def test_graphs_that_do_not_belong_are_refused(world: World) -> None:
    split, cold = make_split(SplitConfig(), world[0]), make_split(SplitConfig(protocol="held_out_items"), world[0])
    data = build_graph(GraphConfig(), cold, world[1], {})
    with pytest.raises(LeakError, match="was built on the split"):
        fit_graph(config_of("gcn"), data, split, seed=0, validate=lambda scorer: 0.0)
    with pytest.raises(DataError, match="needs an embedding table"):
        fit_graph(config_of("gcn"), data, cold, seed=0, validate=lambda scorer: 0.0)


def test_a_user_of_nothing_gets_the_average(world: World) -> None:
    split = make_split(SplitConfig(), world[0])
    scorer = fitted(config_of("sage", link={"training": {"epochs": 1}}), split, world).model.scorer()
    nobody = scorer.represent(Queries(np.array([UNKNOWN_NUM, 0]), [np.zeros(0, dtype=np.int64), np.array([ITEMS - 1])]))
    counts = split.item_counts()
    np.testing.assert_allclose(nobody[0], counts @ scorer.items() / counts.sum(), atol=1e-5)
    if not scorer.scorable_items()[ITEMS - 1]:
        np.testing.assert_array_equal(nobody[0], nobody[1])
    with pytest.raises(DataError, match="no item_num of this model"):
        scorer.represent(Queries(np.array([0]), [np.array([ITEMS])]))


def test_a_vocabulary_is_part_of_a_table(world: World) -> None:
    split = make_split(SplitConfig(), world[0])
    model = fitted(config_of("sage", link={"training": {"epochs": 1}}), split, world).model
    with pytest.raises(ArtifactError):
        model.table(Vocabulary(["a"]))
    assert torch.isfinite(model.vectors).all()
