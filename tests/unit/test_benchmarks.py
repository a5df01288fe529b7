"""The benchmarks' own parts: what they parse, write and refuse. No time is tested here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import _synthetic, embedding, evaluation, graph, scaling
from benchmarks.__main__ import main
from benchmarks._child import Child
from benchmarks._markdown import markdown, shown
from benchmarks._vectors import VectorScorer
from benchmarks.training import Limits, Pass, seconds_to
from benchmarks.training import _is_over as is_over
from benchmarks.training import _pair as pair
from recsys.embeddings.text import TextEncoder, TextEncoderConfig
from recsys.testing.language_models import DIM, LAYERS, tiny_model
from recsys.types import Queries


def test_seconds_to_a_target_are_summed_until_it_is_reached() -> None:
    curve = [Pass(2.0, 0.1), Pass(3.0, 0.3), Pass(4.0, 0.2)]
    assert (seconds_to(curve, 0.1), seconds_to(curve, 0.2), seconds_to(curve, 0.4)) == (2.0, 5.0, None)
    row = pair("data", "model", curve, "peer", [Pass(20.0, 0.1), Pass(30.0, 0.25)])
    # The lower of both bests, 0.25: ours after two passes.
    assert (row["target"], row["ours_seconds"], row["peer_seconds"], row["times_faster"]) == (0.25, 5.0, 50.0, 10.0)


def test_a_training_ends_by_passes_patience_or_cap() -> None:
    curve = [Pass(2.0, 0.3), Pass(2.0, 0.2), Pass(2.0, 0.1)]
    assert not is_over(curve, Limits(epochs=4, patience=3, cap=7.0))
    assert is_over(curve, Limits(epochs=3, patience=3, cap=7.0))
    assert is_over(curve, Limits(epochs=4, patience=2, cap=7.0))
    assert is_over(curve, Limits(epochs=4, patience=3, cap=6.0))


def test_synthetic_events_keep_their_promises() -> None:
    users, items = _synthetic.events(2_000, 100, 300, least=5)
    assert len(users) == len(items) == 2_000
    assert np.bincount(users, minlength=100).min() >= 5
    counts = np.bincount(items, minlength=300)
    assert len(counts) == 300 and counts.min() >= 1
    assert len(np.unique(users * 300 + items)) == 2_000
    # The head is popular: its ten items are 3 % of the catalogue.
    assert counts[:10].sum() > 0.1 * 2_000


def test_scores_from_vectors() -> None:
    scorer = VectorScorer(np.array([[1, 0], [0, 2]], dtype=np.float32), np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32))
    queries = Queries(np.array([1, 0]), (np.zeros(0, dtype=np.int64),) * 2)
    np.testing.assert_array_equal(scorer.score(queries, np.array([2, 0])), [[12, 4], [5, 1]])
    for columns in (np.array([0, 1, 2]), np.array([2, 0])):
        out = np.empty((2, len(columns)), dtype=np.float32)
        scorer.score_into(queries, columns, out)
        np.testing.assert_array_equal(out, scorer.score(queries, columns))


def test_a_point_of_the_sweep_from_parquet_to_training_steps(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    _synthetic.write(path, 2_000, 200, 200)
    found = list(scaling.point(str(path), threads=torch.get_num_threads()))
    assert [message["stage"] for message in found] == list(scaling.STAGES)
    assert all(message["seconds"] > 0 and message["peak_mb"] > 10 for message in found)
    assert found[-1]["what"] == "20 steps, softmax"


def test_the_picture_shows_what_was_capped(tmp_path: Path) -> None:
    points = [{"interactions": n, "stage": s, "seconds": n / 1e5, "peak_mb": 100.0, "capped": False} for n in (1000, 10000) for s in scaling.STAGES]
    scaling.picture({"points": points}, tmp_path / "plain.png")
    points[-1] |= {"peak_mb": None, "capped": True}
    scaling.picture({"points": points}, tmp_path / "capped.png")
    plain, capped = ((tmp_path / f"{name}.png").read_bytes() for name in ("plain", "capped"))
    assert plain.startswith(b"\x89PNG") and plain != capped


def test_figures_become_tables() -> None:
    figures: dict[str, Any] = {"rows": [{"by": "ours", "peak_mb": 1.25}, {"by": "peer", "times": None}], "threads": 2, "notes": ["A note."]}
    lines = markdown("item_item", figures, "a.png").splitlines()
    assert lines[0] == "## item item" and "![item item](a.png)" in lines and "A note." in lines
    assert [line for line in lines if line.startswith("|")] == [
        "| by | peak mb | times |",
        "|---|---|---|",
        "| ours | 1.25 | – |",
        "| peer | – | – |",
        "| figure | value |",
        "|---|---|",
        "| threads | 2 |",
    ]
    assert [shown(value) for value in (True, 22363, 0.123456, 1234.5)] == ["yes", "22,363", "0.1235", "1,234"]


def test_metrics_that_disagree_are_refused() -> None:
    equal = dict.fromkeys(evaluation.METRICS, 0.5)
    evaluation.require_agreement({"ours": equal, "peer": equal | {"mrr": 0.50009}})
    with pytest.raises(AssertionError, match=r"mrr@10: peer says 0\.500200, ours is 0\.500000"):
        evaluation.require_agreement({"ours": equal, "peer": equal | {"mrr": 0.5002}})


def test_products_are_those_of_the_tokens_alone(tmp_path: Path) -> None:
    encoder = TextEncoder.load(TextEncoderConfig(name="x", model=tiny_model(tmp_path, "llama")))
    assert isinstance(encoder, TextEncoder)
    todo = embedding.products(encoder, ["abc", "abcdefg"])
    assert len(todo) == 7 * LAYERS and {len(inputs) for _, inputs in todo} == {10}  # one batch, padded to 14
    assert all(inputs.dtype == torch.bfloat16 and inputs.shape[1] == layer.in_features for layer, inputs in todo)
    assert sum(layer.out_features == DIM and layer.in_features == DIM for layer, _ in todo) == 2 * LAYERS


def test_a_peer_is_compared_in_its_own_dtype_or_named_as_missing() -> None:
    ours = {
        dtype: embedding.Ours(encode=seconds, products=0.5, share=0.5, vectors=np.array([vector], dtype=np.float32))
        for dtype, seconds, vector in (("bfloat16", 2.0, [1, 0]), ("float32", 1.0, [0, 1]))
    }
    row = embedding._against(ours, "m", "peer", {"dtype": "bfloat16", "seconds": 3.0, "vectors": np.array([[5.0, 0.0]])})
    assert row == {"model": "m", "who": "peer, bfloat16", "seconds": 3.0, "ours_is_faster": 3.0, "least_cosine": 1.0}
    assert embedding._against(ours, "m", "peer", {"missing": "make bench-peers"}) == {"model": "m", "who": "peer: not installed (make bench-peers)"}


def test_a_child_answers_and_its_other_lines_are_passed_over() -> None:
    code = "import json\nprint('noise', flush=True)\nprint(json.dumps({'a': 1}), flush=True)\nprint(json.dumps({'got': input()}), flush=True)"
    with Child([sys.executable, "-S", "-c", code], cap=60, threads=1) as child:
        messages = iter(child)
        assert next(messages) == {"a": 1}
        child.answer("go")
        assert list(messages) == [{"got": "go"}] and not child.capped


def test_a_child_that_fails_or_never_ends() -> None:
    with Child([sys.executable, "-S", "-c", "raise ValueError('the reason')"], cap=60, threads=1) as child, pytest.raises(RuntimeError, match="the reason"):
        list(child)
    with Child([sys.executable, "-S", "-c", "import time\ntime.sleep(600)"], cap=0.5, threads=1) as child:
        assert list(child) == [] and child.capped


def test_an_unknown_benchmark_is_refused() -> None:
    with pytest.raises(SystemExit, match="unknown benchmark 'speed'; known: training, evaluation, .*graph, .*chaos"):
        main(["speed"])


def test_a_graph_is_measured_from_building_to_an_epoch(tmp_path: Path) -> None:
    split, catalog, table = graph.world(600)
    assert len(split.train) == len(catalog) == len(table) == split.n_items == 60 and len(split.train.item_nums) == 600
    points = list(graph.point(600, threads=torch.get_num_threads()))
    assert [point["stage"] for point in points] == list(graph.STAGES)
    assert all(point["seconds"] > 0 and point["peak_mb"] > 0 for point in points) and points[2]["what"] == "1 steps"
    capped = {"interactions": 6_000, "stage": "epoch", "seconds": 9.0, "peak_mb": None, "capped": True}
    graph.picture({"points": [{"interactions": 600, **point, "capped": False} for point in points] + [capped]}, tmp_path / "graph.png")
    assert (tmp_path / "graph.png").stat().st_size > 10_000
