"""Each relation against a slow reference, held-out items, planted leaks, and the graph as files."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch_geometric.data import HeteroData

from recsys.artifacts.atomic import read_json, write_json
from recsys.data.catalog import ItemCatalog
from recsys.data.interactions import Interactions
from recsys.data.sequences import Sequences
from recsys.data.split import Split, SplitConfig, make_split
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import ArtifactError, DataError, LeakError, NonFiniteError, SpaceMismatchError
from recsys.graph.attributes import AttributeConfig, attributes, shared_attribute_edges
from recsys.graph.build import GraphConfig, build_graph
from recsys.graph.co_interactions import CoInteractionConfig, co_interaction_edges
from recsys.graph.edges import Edges
from recsys.graph.flat import flatten
from recsys.graph.knowledge import KnowledgeConfig, read_knowledge
from recsys.graph.leaks import assert_no_graph_leak, find_graph_leaks
from recsys.graph.storage import graph_digest, load_graph, save_graph
from recsys.graph.text_neighbours import TextNeighbourConfig, centred, nearest_edges, text_neighbour_edges
from recsys.rng import numpy_generator

MEETS = ("item", "meets", "item")
INTERACTS = ("user", "interacts", "item")


def rows_of(*rows: list[int]) -> Sequences:
    return Sequences.of_rows([np.array(row, dtype=np.int64) for row in rows])


def as_dict(edges: Edges) -> dict[tuple[int, int], float]:
    return {(a, b): w for a, b, w in zip(edges.sources.tolist(), edges.targets.tolist(), edges.weights.tolist(), strict=True)}


def random_rows(seed: int, n_rows: int = 30, n_items: int = 12) -> Sequences:
    generator = np.random.default_rng(seed)
    return Sequences.of_rows([generator.integers(n_items, size=generator.integers(0, 9)) for _ in range(n_rows)])


def table_of(items: Vocabulary, values: np.ndarray | None = None, *, dim: int = 6) -> EmbeddingTable:
    values = numpy_generator(0, "table").standard_normal((len(items), dim)).astype(np.float32) if values is None else values
    space = EmbeddingSpace(
        model="made", revision="", tokenizer="", template="", max_length=1, layer=0, pooling="", attention="", normalise=False, dtype="float32",
        dim=values.shape[1],
    )  # fmt: skip
    return EmbeddingTable(values, items, space)


def test_co_interactions_by_hand() -> None:
    # Window 1: 0-1 twice, 1-2 once, 2-2 is none; c = (2, 3, 1).
    found = as_dict(co_interaction_edges(CoInteractionConfig(window=1), rows_of([0, 1, 0], [1, 2, 2]), 4))
    expected = {(0, 1): 2 / 6**0.5, (1, 0): 2 / 6**0.5, (1, 2): 1 / 3**0.5, (2, 1): 1 / 3**0.5}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("window", [1, 3, 20])
def test_co_interactions_equal_a_count_over_pairs(window: int) -> None:
    rows, n = random_rows(window), 12
    counts: Counter[tuple[int, int]] = Counter()
    for row in rows:
        for place, item in enumerate(row.tolist()):
            for other in row[place + 1 : place + 1 + window].tolist():
                if item != other:
                    counts[item, other] += 1
                    counts[other, item] += 1
    met: Counter[int] = Counter()
    for (item, _), count in counts.items():
        met[item] += count
    expected = {(a, b): c / (met[a] * met[b]) ** 0.5 for (a, b), c in counts.items()}
    found = as_dict(co_interaction_edges(CoInteractionConfig(window=window, neighbours=n), rows, n, at_once=17))
    assert found == pytest.approx(expected)


def test_each_item_keeps_its_strongest_and_what_others_add() -> None:
    rows, n, k = random_rows(7), 12, 2
    every = as_dict(co_interaction_edges(CoInteractionConfig(neighbours=n), rows, n))
    found = as_dict(co_interaction_edges(CoInteractionConfig(neighbours=k), rows, n))
    assert 0 < len(found) < len(every)
    for item in range(n):
        own = sorted((w for (a, _), w in every.items() if a == item), reverse=True)
        kept = sorted((w for (a, _), w in found.items() if a == item), reverse=True)
        assert kept[:k] == pytest.approx(own[:k])
    assert {(b, a): w for (a, b), w in found.items()} == found


def test_shared_attributes_equal_a_dense_cosine(tiny_catalog: ItemCatalog) -> None:
    config = AttributeConfig(neighbours=12)
    found = attributes(config, tiny_catalog)
    assert found["categories"].values == ("Comedy", "Crime", "Drama") and "year" not in found  # no year comes twice
    rarity = np.log(12 / np.array([5, 6, 6])) / np.log(12)
    dense = np.array([[value in row for value in found["categories"].values] for row in tiny_catalog.categories()]) * rarity
    norms = np.linalg.norm(dense, axis=1)
    cosines = dense @ dense.T / np.maximum(norms[:, None] * norms[None, :], 1e-12)
    np.fill_diagonal(cosines, 0)
    expected = {(a, b): cosines[a, b] for a, b in np.argwhere(cosines > 0).tolist()}
    assert as_dict(shared_attribute_edges(config, found, 12, at_once=20)) == pytest.approx(expected, rel=1e-5)
    # i11 has no category, and Drama and Crime are too common now.
    few = as_dict(shared_attribute_edges(AttributeConfig(neighbours=12, common=5), found, 12))
    assert {a for a, _ in few} == {1, 3, 5, 7, 9}


def test_a_value_of_one_item_or_of_all_is_no_node() -> None:
    catalog = ItemCatalog(pl.DataFrame({"item_id": list("abc"), "brand": ["x ", "x", ""], "categories": [["all", "one"], ["all"], ["all"]]}))
    found = attributes(AttributeConfig(), catalog)
    assert list(found) == ["brand"] and found["brand"].values == ("x",)
    assert as_dict(found["brand"].edges(3)) == pytest.approx({(0, 0): np.log(1.5) / np.log(3), (1, 0): np.log(1.5) / np.log(3)})


@pytest.mark.parametrize("exact_below", [10**6, 0])
def test_text_neighbours_equal_a_sort_of_all_cosines(exact_below: int) -> None:
    """The inverted file looks into all of its cells here."""
    generator = np.random.default_rng(1)
    values = generator.standard_normal((60, 8)).astype(np.float32)
    values[[4, 50]] = 0
    vectors = centred(values)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    expected = set()
    for row in range(60):
        best = [int(b) for b in np.argsort(-cosines[row])[:3] if cosines[row, b] > 0.2]
        expected |= {(row, b) for b in best} | {(b, row) for b in best}
    found = as_dict(text_neighbour_edges(TextNeighbourConfig(neighbours=3, minimum=0.2), values, exact_below=exact_below))
    assert set(found) == expected and not {4, 50} & {a for a, _ in found}
    assert all(found[pair] == pytest.approx(cosines[pair], abs=1e-5) for pair in found)


def test_twins_do_not_push_each_other_off() -> None:
    values = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    found = as_dict(text_neighbour_edges(TextNeighbourConfig(neighbours=3), values))
    assert all(a // 4 == b // 4 and a != b for a, b in found) and len(found) == 36
    assert len(text_neighbour_edges(TextNeighbourConfig(), values[:1])) == 0


def test_a_new_text_finds_its_neighbours() -> None:
    vectors = centred(np.random.default_rng(2).standard_normal((20, 5)).astype(np.float32))
    edges = nearest_edges(TextNeighbourConfig(neighbours=4), vectors[2:], vectors[:2])
    for new in range(2):
        cosines = vectors[2:] @ vectors[new]
        kept = [int(b) for b in np.argsort(-cosines)[:4] if cosines[b] > 0]
        assert edges.sources[edges.targets == new].tolist() == kept


def test_centring_is_of_the_rows_that_are_named_and_of_nothing_else() -> None:
    values = np.random.default_rng(3).standard_normal((6, 4)).astype(np.float32) + 5
    values[5] = 0
    warm = np.array([True, True, True, False, False, True])
    moved = values.copy()
    moved[3] += 100
    one, two = centred(values, warm), centred(moved, warm)
    np.testing.assert_array_equal(np.delete(one, 3, 0), np.delete(two, 3, 0))
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), [1, 1, 1, 1, 1, 0], rtol=1e-5)
    with pytest.raises(NonFiniteError, match="row 2"):
        centred(np.where(np.arange(6)[:, None] == 2, np.nan, values))


@pytest.fixture
def films(tmp_path: Path) -> KnowledgeConfig:
    folder = tmp_path / "films"
    folder.mkdir()
    # a and b share an actor and a director told from either end; c follows b; d has no link.
    triples = [("A", "actor", "x"), ("B", "actor", "x"), ("A", "by", "y"), ("y", "made", "B"), ("C", "sequel", "B"), ("z", "made", "y"), ("A", "actor", "x")]
    links = [("a", "A"), ("b", "B"), ("c", "C"), ("unknown", "E")]
    (folder / "films.kg").write_text("\n".join("\t".join(row) for row in [("head_id:token", "relation_id:token", "tail_id:token"), *triples]))
    (folder / "films.link").write_text("\n".join("\t".join(row) for row in [("item_id:token", "entity_id:token"), *links]))
    return KnowledgeConfig(dataset="films", folder=tmp_path)


def test_a_knowledge_graph_by_hand(films: KnowledgeConfig) -> None:
    found = read_knowledge(films, Vocabulary("abcd"))
    assert found.entities.values == ("x", "y")
    assert list(zip(found.entities.item_nums.tolist(), found.entities.value_nums.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert as_dict(found.related) == {(1, 2): 1.0, (2, 1): 1.0}
    without = read_knowledge(films.model_copy(update={"without": ("made", "sequel")}), Vocabulary("abcd"))
    assert without.entities.values == ("x",) and len(without.related) == 0


def test_files_of_no_knowledge_are_refused(films: KnowledgeConfig) -> None:
    with pytest.raises(DataError, match="links 0 of 1 items"):
        read_knowledge(films, Vocabulary(["nobody"]))
    films.files()[1].write_text("item_id:token\nA\n")
    with pytest.raises(DataError, match="2 columns"):
        read_knowledge(films, Vocabulary("abcd"))
    films.files()[0].unlink()
    with pytest.raises(DataError, match=r"films\.kg"):
        read_knowledge(films, Vocabulary("abcd"))


@pytest.mark.realdata
def test_the_knowledge_graph_of_the_wheel() -> None:
    items = Vocabulary([str(number) for number in range(1, 1683)])
    found = read_knowledge(KnowledgeConfig(), items)
    # 1,598 films are linked; all entities of two of them are of no other film.
    assert len(np.unique(found.entities.item_nums)) == 1596 and len(found.entities.values) > 8000
    counts = np.bincount(found.entities.value_nums)
    assert counts.min() >= 2 and counts.max() < len(items)


def kinds(data: HeteroData) -> set[str]:
    return {kind[1] + ("" if kind[2] == "item" else ":" + kind[2]) for kind in data.edge_types}


def test_a_graph_of_all_that_is_known(tiny_split: Split, tiny_catalog: ItemCatalog) -> None:
    table = table_of(tiny_split.items)
    data = build_graph(GraphConfig(), tiny_split, tiny_catalog, {"made": table})
    assert kinds(data) == {"interacts", "meets", "shares", "has:categories", "reads_like_made"}
    assert (data["user"].num_nodes, data["item"].num_nodes, data["categories"].num_nodes) == (8, 12, 3)
    assert data["item"].x.shape == (12, 6) and data.spaces == f"made={table.space_id}" and data.split_hash == tiny_split.digest
    # User k trains on k..k+3 (modulo eleven).
    pairs = {(user, (user + step) % 11) for user in range(8) for step in range(4)}
    assert {tuple(pair) for pair in data[INTERACTS].edge_index.T.tolist()} == pairs
    assert data.validate()
    for kind in data.edge_types:
        assert bool((data[kind].edge_weight > 0).all()) and bool(torch.isfinite(data[kind].edge_weight).all())
    bare = GraphConfig(co_interactions=None, attributes=None, text=None)
    assert kinds(build_graph(bare, tiny_split, tiny_catalog, {})) == {"interacts"}


def test_a_repeated_interaction_is_one_edge() -> None:
    frame = pl.DataFrame([("u", item, time) for time, item in enumerate("aabaab")], schema=["user_id", "item_id", "time"], orient="row")
    split = make_split(SplitConfig(), Interactions.of_frame(frame, Vocabulary("ab")))
    data = build_graph(GraphConfig(), split, ItemCatalog(pl.DataFrame({"item_id": ["a", "b"]})), {})
    assert data[INTERACTS].edge_index.tolist() == [[0, 0], [0, 1]]
    assert_no_graph_leak(split, data)


def test_held_out_items_have_text_and_attributes_only(tiny_cold_split: Split, tiny_catalog: ItemCatalog) -> None:
    data = build_graph(GraphConfig(), tiny_cold_split, tiny_catalog, {"made": table_of(tiny_cold_split.items)})
    held_out = set(np.flatnonzero(tiny_cold_split.held_out).tolist())
    assert held_out
    for kind in data.edge_types:
        sources, targets = data[kind].edge_index.tolist()
        touched = (set(sources) if kind[0] == "item" else set()) | (set(targets) if kind[2] == "item" else set())
        assert (touched & held_out == set()) == (kind[1] in ("interacts", "meets"))
    assert_no_graph_leak(tiny_cold_split, data)


def test_what_is_held_out_moves_nothing_but_its_own_text(tiny_cold_split: Split, tiny_catalog: ItemCatalog) -> None:
    """Other validation and test targets give the same graph: it reads the training rows alone."""
    changed = replace(
        tiny_cold_split,
        validation=replace(tiny_cold_split.validation, targets=tiny_cold_split.test.targets),
        test=replace(tiny_cold_split.test, targets=tiny_cold_split.validation.targets),
    )
    tables = {"made": table_of(tiny_cold_split.items)}
    graphs = [build_graph(GraphConfig(), split, tiny_catalog, tables) for split in (tiny_cold_split, changed)]
    assert graph_digest(graphs[0]) == graph_digest(graphs[1])


def planted(split: Split, cases: str) -> Iterator[tuple[int, int]]:
    found = getattr(split, cases)
    yield from zip(found.user_nums.tolist(), found.targets.tolist(), strict=True)


@pytest.mark.parametrize("cases", ["validation", "test", "cold"])
def test_a_graph_of_more_than_training_is_caught(cases: str, tiny_cold_split: Split, tiny_catalog: ItemCatalog) -> None:
    """The same code on rows that hold the targets."""
    targets = dict(planted(tiny_cold_split, cases))
    rows = [np.append(row, targets[user]) if user in targets else row for user, row in enumerate(tiny_cold_split.train)]
    leaking = replace(tiny_cold_split, train=Sequences.of_rows(rows))
    data = build_graph(GraphConfig(co_interactions=CoInteractionConfig(window=1)), leaking, tiny_catalog, {})
    found = find_graph_leaks(tiny_cold_split, data).found()
    assert found[f"{cases}_pairs"] == len(targets)
    assert ("edges_of_held_out_items" in found) == (cases == "cold")
    with pytest.raises(LeakError, match="the graph knows what it must not know"):
        assert_no_graph_leak(tiny_cold_split, data)


def test_a_single_planted_edge_is_caught(tiny_cold_split: Split, tiny_catalog: ItemCatalog) -> None:
    data = build_graph(GraphConfig(), tiny_cold_split, tiny_catalog, {})
    cold = int(np.flatnonzero(tiny_cold_split.held_out)[0])
    warm = int(tiny_cold_split.train.item_nums[0])
    honest = data[MEETS].edge_index
    data[MEETS].edge_index = torch.cat([honest, torch.tensor([[warm], [cold]])], dim=1)
    assert find_graph_leaks(tiny_cold_split, data).found() == {"edges_without_support": 1, "edges_of_held_out_items": 1}
    for support in (True, False):
        with pytest.raises(LeakError, match="held out items"):
            assert_no_graph_leak(tiny_cold_split, data, support=support)
    apart = next(item for item in range(11) if not tiny_cold_split.held_out[item] and not any(item in r and warm in r for r in tiny_cold_split.train))
    data[MEETS].edge_index = torch.cat([honest, torch.tensor([[warm], [apart]])], dim=1)
    assert find_graph_leaks(tiny_cold_split, data).found() == {"edges_without_support": 1}


def test_a_graph_of_another_split_is_refused(tiny_split: Split, tiny_cold_split: Split, tiny_catalog: ItemCatalog) -> None:
    data = build_graph(GraphConfig(), tiny_split, tiny_catalog, {})
    with pytest.raises(LeakError, match="was built on the split"):
        assert_no_graph_leak(tiny_cold_split, data)
    with pytest.raises(SpaceMismatchError, match="the catalog"):
        build_graph(GraphConfig(), tiny_split, ItemCatalog(tiny_catalog.table.reverse()), {})


def test_files_give_the_graph_back(tiny_cold_split: Split, tiny_catalog: ItemCatalog, tmp_path: Path) -> None:
    data = build_graph(GraphConfig(), tiny_cold_split, tiny_catalog, {"made": table_of(tiny_cold_split.items)})
    save_graph(data, tmp_path)
    loaded = load_graph(tmp_path)
    assert graph_digest(loaded) == graph_digest(data)
    assert (loaded.split_hash, loaded.spaces, loaded.node_types, loaded.edge_types) == (data.split_hash, data.spaces, data.node_types, data.edge_types)
    torch.testing.assert_close(loaded["item"].x, data["item"].x, rtol=0, atol=0)
    for kind in data.edge_types:
        torch.testing.assert_close(loaded[kind].edge_index, data[kind].edge_index, rtol=0, atol=0)
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded[MEETS].edge_weight[0] += 0.5
    assert graph_digest(loaded) != graph_digest(data)
    write_json(tmp_path / "graph.json", read_json(tmp_path / "graph.json") | {"format": 99})
    with pytest.raises(ArtifactError, match="graph format 99, this code reads 1"):
        load_graph(tmp_path)
    with pytest.raises(ArtifactError, match=r"no saved graph \(graph.json is missing\)"):
        load_graph(tmp_path / "elsewhere")


def test_imagined_edges_are_a_relation_that_cold_items_keep(tiny_cold_split: Split, tiny_catalog: ItemCatalog) -> None:
    (cold, *_), (known, *_) = np.flatnonzero(tiny_cold_split.held_out).tolist(), np.flatnonzero(tiny_cold_split.item_counts()).tolist()
    imagined = Edges(np.array([cold]), np.array([known]), np.array([0.5], dtype=np.float32)).both_ways(tiny_cold_split.n_items)
    data = build_graph(GraphConfig(attributes=None, text=None), tiny_cold_split, tiny_catalog, {}, imagined=imagined)
    assert_no_graph_leak(tiny_cold_split, data)
    flat = flatten(data, users=False)
    at = (flat.edge_index[0] == cold) & (flat.edge_index[1] == known)
    assert int(at.sum()) == 1 and float(flat.lasting[at]) == float(flat.weights[at]) > 0
