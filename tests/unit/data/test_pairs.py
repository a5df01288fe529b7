"""Pairs of items that training brings together."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.interactions import Interactions
from recsys.data.leaks import find_leaks
from recsys.data.pairs import ItemPairs, PairConfig, PairSampler, co_occurrences
from recsys.data.sequences import Sequences
from recsys.data.split import Split, SplitConfig, make_split
from recsys.data.vocabulary import Vocabulary
from recsys.errors import DataError
from recsys.rng import numpy_generator


def sequences(*rows: list[int]) -> Sequences:
    return Sequences.of_rows([np.array(row, dtype=np.int64) for row in rows])


def as_dict(pairs: ItemPairs) -> dict[tuple[int, int], int]:
    return {(a, b): n for a, b, n in zip(pairs.left.tolist(), pairs.right.tolist(), pairs.counts.tolist(), strict=True)}


def by_hand(rows: list[list[int]], window: int) -> dict[tuple[int, int], int]:
    met: Counter[tuple[int, int]] = Counter()
    for row in rows:
        for i, first in enumerate(row):
            for second in row[i + 1 : i + 1 + window]:
                if first != second:
                    met[min(first, second), max(first, second)] += 1
    return dict(met)


def test_by_hand() -> None:
    pairs = co_occurrences(sequences([3, 1, 0], [0, 1], [2]), 5, window=1)
    assert as_dict(pairs) == {(0, 1): 2, (1, 3): 1}
    assert as_dict(co_occurrences(sequences([3, 1, 0], [0, 1], [2]), 5, window=2)) == {(0, 1): 2, (1, 3): 1, (0, 3): 1}
    assert as_dict(co_occurrences(sequences([3, 1, 0], [0, 1], [2]), 5, window=2, minimum=2)) == {(0, 1): 2}


@given(st.lists(st.lists(st.integers(0, 6), max_size=8), max_size=8), st.integers(1, 9), st.integers(1, 6))
def test_equals_the_loop_whatever_is_counted_at_once(rows: list[list[int]], window: int, at_once: int) -> None:
    pairs = co_occurrences(sequences(*rows), 7, window, at_once=at_once)
    assert as_dict(pairs) == by_hand(rows, window)
    codes = pairs.left.astype(np.int64) * 7 + pairs.right
    assert (np.diff(codes) > 0).all()


def test_together_is_the_symmetric_matrix_of_pairs() -> None:
    pairs = co_occurrences(sequences([3, 1, 0], [0, 1]), 5, window=1)
    np.testing.assert_array_equal(pairs.together(np.array([0, 1, 3])), [[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert pairs.items().tolist() == [0, 1, 3]


def test_weights_by_hand() -> None:
    pairs = co_occurrences(sequences([0, 1], [0, 1], [0, 1], [0, 1], [0, 2]), 3, window=1)
    assert pairs.weights(PairConfig(exponent=0.5)).tolist() == pytest.approx([2 / 3, 1 / 3])
    assert pairs.weights(PairConfig(exponent=0)).tolist() == pytest.approx([0.5, 0.5])
    # meetings: item 0 has 5, item 1 has 4, item 2 has 1; 4 / (5 * 4) equals 1 / (5 * 1).
    assert pairs.weights(PairConfig(exponent=1, popularity=1)).tolist() == pytest.approx([0.5, 0.5])


def test_draws_follow_the_weights_in_both_orders_and_the_seed_decides() -> None:
    pairs = co_occurrences(sequences([0, 1], [0, 1], [0, 1], [0, 2]), 3, window=1)
    sampler = PairSampler(PairConfig(exponent=1), pairs)
    first, second = sampler.draw(40_000, numpy_generator(7, "pairs"))
    counts = Counter(zip(first.tolist(), second.tolist(), strict=True))
    assert {pair: n / 40_000 for pair, n in counts.items()} == pytest.approx({(0, 1): 3 / 8, (1, 0): 3 / 8, (0, 2): 1 / 8, (2, 0): 1 / 8}, abs=0.01)
    again = sampler.draw(40_000, numpy_generator(7, "pairs"))
    np.testing.assert_array_equal(first, again[0])
    np.testing.assert_array_equal(second, again[1])
    assert (sampler.draw(40_000, numpy_generator(8, "pairs"))[0] != first).any()


def test_draws_among_some_never_give_another() -> None:
    pairs = co_occurrences(sequences([0, 1], [1, 2], [2, 3], [3, 4]), 5, window=1)
    among = np.array([False, True, False, True])
    first, second = PairSampler(PairConfig(), pairs, among).draw(2000, numpy_generator(0, "pairs"))
    assert set(zip(np.minimum(first, second).tolist(), np.maximum(first, second).tolist(), strict=True)) == {(1, 2), (3, 4)}
    with pytest.raises(DataError, match="none of 4 pairs"):
        PairSampler(PairConfig(), pairs, np.zeros(4, dtype=np.bool_))


def planted(protocol: str) -> Split:
    """Every user ends with its own `secret` pair of items: validation and test. Item 0 is met by all, in the middle."""
    ids = Vocabulary([f"i{k}" for k in range(40)])
    events = [(f"u{u}", f"i{i}", t) for u in range(6) for t, i in enumerate([1 + u, 0, 2 + u, 20 + u, 30 + u])]
    interactions = Interactions.of_frame(pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row"), ids)
    return make_split(SplitConfig(protocol=protocol, held_out_share=0.3), interactions)  # type: ignore[arg-type]


def test_no_pair_comes_from_validation_or_test() -> None:
    split = planted("leave_last_out")
    pairs = ItemPairs.of_split(PairConfig(window=10), split)
    assert int(max(pairs.left.max(), pairs.right.max())) < 20, "items 20.. are targets alone"
    edges = np.stack([pairs.left, pairs.right], axis=1).astype(np.int64)
    assert not find_leaks(split, split.train, item_edges=edges).leaked
    # The planted pair would be found if it stood in training.
    assert as_dict(co_occurrences(sequences([20, 30]), 40, 1)) == {(20, 30): 1}


def test_no_held_out_item_is_in_a_pair() -> None:
    split = planted("held_out_items")
    assert split.held_out.any()
    pairs = ItemPairs.of_split(PairConfig(window=10), split)
    assert len(pairs) and not split.held_out[pairs.items()].any()


def test_nothing_to_learn_from_is_an_error(tiny_split: Split) -> None:
    with pytest.raises(DataError, match="no two items meet 99 times"):
        ItemPairs.of_split(PairConfig(minimum=99), tiny_split)


def test_ten_million_meetings_are_counted_in_bounded_memory() -> None:
    """A tenth of ten million interactions, with a budget a tenth of the usual: the peak above the result stays small."""
    import tracemalloc

    generator = numpy_generator(0, "large")
    rows = Sequences(np.arange(0, 1_000_001, 10, dtype=np.int64), generator.zipf(1.3, 1_000_000).clip(max=50_000).astype(np.int64) - 1)
    tracemalloc.start()
    pairs = co_occurrences(rows, 50_000, 3, at_once=800_000)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert pairs.counts.sum() == sum(int((rows.item_nums.reshape(-1, 10)[:, d:] != rows.item_nums.reshape(-1, 10)[:, :-d]).sum()) for d in (1, 2, 3))
    assert peak < 12 * len(pairs) / 2**20 * 2 + 90, f"{peak:.0f} MB for {len(pairs):,} pairs"
