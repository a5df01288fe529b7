"""Reading a text-attributed graph, and splitting its nodes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import DataError
from recsys.graph.node_split import NodeSplit, PublicSplit, ShareSplit, ShotSplit, split_nodes
from recsys.graph.text_graph import TextGraph, undirected

NODES: dict[str, Any] = {
    "node_id": [0, 1, 2, 3],
    "title": ["A", "B", None, "D"],
    "abstract": ["a", "", "c", "d"],
    "label": [0, 1, 0, 1],
    "label_name": ["x", "y", "x", "y"],
    "split": ["train", "val", "test", "none"],
    "text_certain": [True, True, True, False],
}


def written(folder: Path, nodes: dict[str, Any], edges: list[tuple[int, int]]) -> Path:
    pl.DataFrame(nodes).write_parquet(folder / "nodes.parquet")
    pl.DataFrame(edges, schema=["src", "dst"], orient="row").write_parquet(folder / "edges.parquet")
    return folder


def graph_of(labels: list[int], *, without_text: tuple[int, ...] = ()) -> TextGraph:
    texts = tuple("" if node in without_text else f"text {node}" for node in range(len(labels)))
    return TextGraph("g", texts, np.array(labels, dtype=np.int64), tuple("abcdefg"[: max(labels) + 1]), undirected(np.array([0]), np.array([1])))


def test_a_graph_is_read_as_it_stands_and_uncertain_texts_are_left_out(tmp_path: Path) -> None:
    graph = TextGraph.read(written(tmp_path, NODES, [(2, 0), (0, 2), (1, 1), (3, 1)]))
    assert graph.texts == ("A a", "B", "c", "")
    assert graph.classes == ("x", "y")
    assert graph.labels.tolist() == [0, 1, 0, 1]
    assert graph.edges.tolist() == [[0, 1], [2, 3]]  # once a pair, no loop
    assert graph.edge_index.tolist() == [[0, 1, 2, 3], [2, 3, 0, 1]]
    assert graph.parts is not None and graph.parts.tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"node_id": [0, 2, 1, 3]}, "in this order"),
        ({"label_name": ["x", "y", "z", "y"]}, "one name"),
        ({"split": ["train", "val", "test", "dev"]}, "split is one of"),
        ({"label": None}, "no column 'label'"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    nodes = {name: values for name, values in (NODES | change).items() if values is not None}
    with pytest.raises(DataError, match=message):
        TextGraph.read(written(tmp_path, nodes, [(0, 1)]))


def test_edges_beyond_the_nodes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nodes 0 to 3"):
        TextGraph.read(written(tmp_path, NODES, [(0, 4)]))
    with pytest.raises(DataError, match="not readable"):
        TextGraph.read(tmp_path / "absent")


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_undirected_forgets_order_direction_and_repetition(pairs: list[tuple[int, int]]) -> None:
    sources, targets = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    found = undirected(sources, targets)
    assert set(map(tuple, found.T.tolist())) == {(min(p), max(p)) for p in pairs if p[0] != p[1]}
    assert np.array_equal(found, undirected(np.concatenate([targets, sources]), np.concatenate([sources, targets])))


def test_the_split_of_the_data_is_taken_without_the_nodes_that_have_no_text(tmp_path: Path) -> None:
    nodes = NODES | {"split": ["train", "val", "test", "test"]}
    split = split_nodes(PublicSplit(), TextGraph.read(written(tmp_path, nodes, [(0, 1)])), seed=5)
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0], [1], [2])


def test_shares_cover_every_usable_node_once() -> None:
    graph = graph_of([0, 1] * 50, without_text=(4, 5))
    split = split_nodes(ShareSplit(), graph, seed=1)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [59, 19, 20]
    everyone = np.sort(np.concatenate([split.train, split.validation, split.test]))
    assert everyone.tolist() == [node for node in range(100) if node not in (4, 5)]
    assert split_nodes(ShareSplit(), graph, seed=1).digest == split.digest != split_nodes(ShareSplit(), graph, seed=2).digest


def test_shots_are_nested_and_judged_on_the_same_nodes() -> None:
    graph = graph_of([0, 1, 2] * 40)
    splits = {k: split_nodes(ShotSplit(k=k, most=5, validation=30, test=50), graph, seed=3) for k in (1, 3, 5)}
    for k, split in splits.items():
        assert np.bincount(graph.labels[split.train]).tolist() == [k] * 3
        assert np.array_equal(split.test, splits[1].test) and np.array_equal(split.validation, splits[1].validation)
    assert set(splits[1].train) < set(splits[3].train) < set(splits[5].train)


def test_planetoids_protocol_where_the_data_states_none() -> None:
    graph = graph_of([0, 1] * 60)
    split = split_nodes(PublicSplit(per_class=20, validation=30, test=50), graph, seed=0)
    assert np.bincount(graph.labels[split.train]).tolist() == [20, 20]
    assert (len(split.validation), len(split.test)) == (30, 50)


def test_too_few_nodes_are_refused() -> None:
    with pytest.raises(DataError, match="3 nodes a class"):
        split_nodes(ShotSplit(k=3, validation=1, test=1), graph_of([0, 0, 0, 1, 1]), seed=0)
    with pytest.raises(DataError, match="are left"):
        split_nodes(ShotSplit(k=1, most=1, validation=10, test=10), graph_of([0, 1] * 5), seed=0)
    with pytest.raises(DataError, match="two parts"):
        NodeSplit(np.array([0, 1]), np.array([1]), np.array([2]))


@pytest.mark.skipif("RECSYS_DATA" not in os.environ, reason="needs RECSYS_DATA")
@pytest.mark.parametrize(("name", "nodes", "edges", "without"), [("tag_cora", 2708, 5278, 58), ("tag_citeseer", 3186, 4225, 0)])
def test_the_real_graphs(name: str, nodes: int, edges: int, without: int) -> None:
    folder = Path(os.environ["RECSYS_DATA"]) / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    graph = TextGraph.read(folder)
    assert (len(graph), graph.edges.shape[1], int((~graph.has_text).sum())) == (nodes, edges, without)
