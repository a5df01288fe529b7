"""Quality of item embeddings, against loops over items."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.interactions import Interactions
from recsys.data.split import Cases, Split, SplitConfig, make_split
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import DataError, UnknownIdError
from recsys.evaluation.item_embeddings import RetrievalSample, asking_with_the_last, mean_by, measure
from recsys.evaluation.significance import compare_values

N = 30


def split_of(protocol: str, seed: int = 0, repeats: bool = False) -> Split:
    generator = np.random.default_rng(seed)
    events = [(f"u{u}", f"i{i}", t) for u in range(40) for t, i in enumerate(generator.choice(N, size=int(generator.integers(3, 9)), replace=repeats).tolist())]
    items = Vocabulary([f"i{k}" for k in range(N)])
    interactions = Interactions.of_frame(pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row"), items)
    return make_split(SplitConfig(protocol=protocol, held_out_share=0.2), interactions)  # type: ignore[arg-type]


def table_of(split: Split, values: np.ndarray) -> EmbeddingTable:
    return EmbeddingTable(values.astype(np.float32), split.items, HashedEncoder(values.shape[1]).space)


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def rank_of(scores: np.ndarray, target: int, allowed: list[int]) -> int:
    """1-based, without ties."""
    return 1 + sum(scores[item] > scores[target] for item in allowed if item != target)


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_loop(seed: int) -> None:
    split = split_of("held_out_items", seed, repeats=seed == 1)
    values = unit(np.random.default_rng(seed).standard_normal((N, 4)))
    found = measure(table_of(split, values * 3), split)

    hits: dict[int, list[float]] = {}
    per_case = []
    for row in range(len(split.test)):
        query, target = int(split.test.inputs[row][-1]), int(split.test.targets[row])
        if query != target:
            rank = rank_of(values @ values[query], target, [i for i in range(N) if i != query])
            per_case.append((rank <= 10, 1 / rank if rank <= 10 else 0.0))
            hits.setdefault(query, []).append(float(rank <= 10))
    np.testing.assert_allclose(found.evaluations["item_to_item"].values("recall@10"), [hit for hit, _ in per_case])
    np.testing.assert_allclose(found.evaluations["item_to_item"].values("mrr@10"), [mrr for _, mrr in per_case])
    np.testing.assert_allclose(found.over_items("recall@10"), [np.mean(hits[query]) for query in sorted(hits)])

    for name, allowed in (("cold", range(N)), ("cold_only", np.flatnonzero(split.held_out).tolist())):
        expected = []
        for row in range(len(split.cold)):
            history, target, seen = split.cold.inputs[row], int(split.cold.targets[row]), split.cold.seen[row].tolist()
            rank = rank_of(values @ values[history].mean(axis=0), target, [i for i in allowed if i not in seen])
            expected.append(1 / np.log2(rank + 1) if rank <= 10 else 0.0)
        np.testing.assert_allclose(found.evaluations[name].values("ndcg@10"), expected, atol=1e-12)


def test_known_answer() -> None:
    """Every user goes on to the next item of a circle; vectors on that circle find it first or second, shuffled ones do not."""
    events = [(f"u{u}", f"i{(u + t) % N}", t) for u in range(N) for t in range(6)]
    items = Vocabulary([f"i{k}" for k in range(N)])
    split = make_split(SplitConfig(), Interactions.of_frame(pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row"), items))
    angles = 2 * np.pi * np.arange(N) / N
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    good = measure(table_of(split, circle), split)
    assert set(good.evaluations) == {"item_to_item"}, "no cold items in this split"
    assert good.evaluations["item_to_item"].mean("recall@10") == 1.0 and good.evaluations["item_to_item"].mean("mrr@10") >= 0.5
    bad = measure(table_of(split, circle[np.random.default_rng(0).permutation(N)]), split)
    assert bad.evaluations["item_to_item"].mean("mrr@10") < 0.3
    compared = compare_values({"good": good.values()["over items mrr@10"], "bad": bad.values()["over items mrr@10"]}, "good", "mrr@10")[0]
    assert compared.difference > 0.2 and compared.p_bootstrap < 0.01
    sample = RetrievalSample(split, 1000, 0)
    assert sample.items.tolist() == list(range(N)) and sample.measure(circle.astype(np.float32)) >= 0.5


def test_nothing_is_centred() -> None:
    """A common component makes all cosines alike; whoever wants it gone says so in the embedding."""
    split = split_of("held_out_items")
    values = np.random.default_rng(3).standard_normal((N, 4))
    plain, shifted = (measure(table_of(split, v), split).evaluations["cold"] for v in (values, values + 100))
    assert not np.array_equal(plain.better, shifted.better)


def test_an_item_without_a_vector_finds_nothing_and_is_not_found() -> None:
    split = split_of("held_out_items")
    values = unit(np.random.default_rng(0).standard_normal((N, 4)))
    values[split.cold.targets[0]] = 0.0
    quality = measure(table_of(split, values), split)
    assert quality.evaluations["cold"].values("recall@10")[0] == 0.0


def test_the_last_item_asks() -> None:
    rows = [(0, [1, 2], [1, 2], 3), (1, [], [], 4), (2, [5, 6], [5, 6], 6), (3, [7], [7], 8)]
    cases = Cases.of_rows([(u, np.array(i, dtype=np.int64), np.array(s, dtype=np.int64), t) for u, i, s, t in rows])
    asked = asking_with_the_last(cases)
    assert asked.user_nums.tolist() == [0, 3] and asked.targets.tolist() == [3, 8]
    assert [row.tolist() for row in asked.inputs] == [row.tolist() for row in asked.seen] == [[2], [7]]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1))
def test_means_by_group(rows: list[tuple[int, int]]) -> None:
    groups, values = np.array(rows).T
    expected = [np.mean([v for g, v in rows if g == group]) for group in sorted(set(groups.tolist()))]
    np.testing.assert_allclose(mean_by(groups, values.astype(np.float64)), expected)


def test_the_sample_equals_the_loop_and_reads_no_test_case() -> None:
    split = split_of("leave_last_out")
    sample, again, other = RetrievalSample(split, 15, 0), RetrievalSample(split, 15, 0), RetrievalSample(split, 15, 1)
    values = unit(np.random.default_rng(0).standard_normal((N, 4))).astype(np.float32)
    asked = asking_with_the_last(split.validation)
    sampled = set(sample._cases.user_nums.tolist())
    chosen = [row for row in range(len(asked)) if asked.user_nums[row] in sampled]
    assert len(chosen) == 15
    ranks = [
        rank_of(values @ values[asked.inputs[row][0]], int(asked.targets[row]), [i for i in sample.items.tolist() if i != asked.inputs[row][0]])
        for row in chosen
    ]
    assert sample.measure(values[sample.items]) == pytest.approx(np.mean(1 / np.array(ranks)))
    assert again.measure(values[again.items]) == sample.measure(values[sample.items]) != other.measure(values[other.items])


def test_the_sample_keeps_to_items_with_a_vector() -> None:
    split = split_of("leave_last_out")
    among = np.arange(N) % 3 > 0
    assert set(RetrievalSample(split, 1000, 0, among).items.tolist()) <= set(np.flatnonzero(among).tolist())
    with pytest.raises(DataError, match="nothing to stop by"):
        RetrievalSample(split, 1000, 0, np.zeros(N, dtype=np.bool_))


def test_bad_input() -> None:
    split = split_of("held_out_items")
    other = EmbeddingTable(np.ones((1, 64), dtype=np.float32), Vocabulary(["i0"]), HashedEncoder(64).space)
    with pytest.raises(UnknownIdError):
        measure(other, split)
    events = [("u", "i0", t) for t in range(4)]
    repeated = make_split(
        SplitConfig(), Interactions.of_frame(pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row"), Vocabulary(["i0", "i1"]))
    )
    with pytest.raises(DataError, match="nothing to ask"):
        measure(EmbeddingTable(np.ones((2, 64), dtype=np.float32), Vocabulary(["i0", "i1"]), HashedEncoder(64).space), repeated)
    with pytest.raises(DataError, match="nothing to stop by"):
        RetrievalSample(repeated, 5, 0)
