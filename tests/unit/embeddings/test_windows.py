"""Windows and batches worked out by hand, on a tokenizer with one token a byte ("a" is ord("a") - 33 + 5)."""

from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.embeddings.windows import _BATCH_COST, Batch, Window, Windower, batches, chunked
from recsys.errors import ConfigError, DataError
from recsys.testing.language_models import byte_tokenizer

BOS, EOS = 1, 2
PLAIN, WRAPPING = byte_tokenizer(), byte_tokenizer(wrap=True)


def ids(text: str) -> list[int]:
    return PLAIN(text, split_special_tokens=True)["input_ids"]  # type: ignore[no-any-return]


def test_a_long_text_is_split_and_every_token_kept() -> None:
    windows = Windower.plain(WRAPPING, 6).split(["abcdefghij", "k"])
    assert windows == [
        Window([BOS, *ids("abcd"), EOS], 0, 0), Window([BOS, *ids("efgh"), EOS], 0, 0), Window([BOS, *ids("ij"), EOS], 0, 0),
        Window([BOS, *ids("k"), EOS], 0, 1),
    ]  # fmt: skip
    assert [window.weight for window in windows] == [6, 6, 4, 3] and chunked(windows, 2) == 1
    assert Windower.plain(PLAIN, 6).split([]) == [] and chunked([], 0) == 0


def test_an_instruction_stands_before_every_window_and_is_not_pooled() -> None:
    windows = Windower.plain(WRAPPING, 8, instruction="q:").split(["abcdef"])
    assert windows == [Window([BOS, *ids("q:abcd"), EOS], 3, 0), Window([BOS, *ids("q:ef"), EOS], 3, 0)]
    assert [window.weight for window in windows] == [5, 3]


def test_the_space_after_an_instruction_belongs_to_the_text() -> None:
    """So that "query: Toy" is tokenized as a whole: most tokenizers have one token for " Toy"."""
    assert Windower.plain(PLAIN, 9, instruction="q: ").split(["ab"]) == [Window(ids("q: ab"), 2, 0)]


def test_eos_is_added_only_where_the_tokenizer_adds_nothing() -> None:
    assert Windower.plain(PLAIN, 8, closing=True).split(["ab"]) == [Window([*ids("ab"), EOS], 0, 0)]
    assert Windower.plain(WRAPPING, 8, closing=True).split(["ab"]) == [Window([BOS, *ids("ab"), EOS], 0, 0)]
    bare = byte_tokenizer()
    bare.eos_token = None
    with pytest.raises(ConfigError, match="neither EOS nor one of its own"):
        Windower.plain(bare, 8, closing=True)


@pytest.mark.parametrize("name", ["</s>", "<|im_end|>", "<pad>"])
def test_special_tokens_in_a_text_are_letters(name: str) -> None:
    (window,) = Windower.plain(PLAIN, 64).split([f"a{name}b"])
    assert len(window.ids) == len(f"a{name}b") and min(window.ids) >= 5


def test_texts_without_tokens_and_windows_without_room() -> None:
    for instruction in ("", "q: "):
        with pytest.raises(DataError, match="text 1 .* has no tokens"):
            Windower.plain(PLAIN, 8, instruction=instruction).split(["a", ""])
    with pytest.raises(ConfigError, match="no room"):
        Windower.plain(PLAIN, 8, instruction="12345678")


def test_batch_known_answer() -> None:
    batch = Batch.of([Window([7, 8, 9], 1, 0), Window([5, 6], 0, 1)])
    assert batch.ids.tolist() == [[7, 8, 9], [5, 6, 0]] and batch.padded
    assert batch.seen.tolist() == [[True, True, True], [True, True, False]]
    assert batch.pooled.tolist() == [[False, True, True], [True, True, False]]
    assert not Batch.of([Window([7, 8], 0, 0)]).padded
    assert Batch.of([Window([7, 8], 0, 0)], pad_to=4).seen.tolist() == [[True, True, False, False]]
    assert batch.ids.dtype == torch.int64


def test_batches_known_answer() -> None:
    assert list(batches([5, 1, 3, 2, 9], 6)) == [[1, 3], [2], [0], [4]]  # one longer than the budget still gets its batch
    assert list(batches([10] * 3 + [200], 1000)) == [[0, 1, 2], [3]]  # one batch would compute 570 tokens of padding
    assert list(batches([10] * 3 + [12], 1000)) == [[0, 1, 2, 3]]
    assert list(batches([], 6)) == []


@given(st.lists(st.integers(1, 90), max_size=9), st.integers(64, 200))
def test_batches_cost_least_of_all_ways_to_cut(lengths: list[int], budget: int) -> None:
    made = list(batches(lengths, budget))
    assert sorted(row for batch in made for row in batch) == list(range(len(lengths)))

    def cost(parts: list[list[int]]) -> int:
        return sum(len(part) * max(part) + _BATCH_COST for part in parts)

    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget for batch in made)
    ordered = sorted(lengths)
    ways = [[]] if not lengths else [
        [ordered[start:end] for start, end in pairwise([0, *places, len(lengths)])]
        for count in range(len(lengths)) for places in combinations(range(1, len(lengths)), count)
    ]  # fmt: skip
    fitting = [way for way in ways if all(len(part) == 1 or len(part) * max(part) <= budget for part in way)]
    assert cost([[lengths[row] for row in batch] for batch in made]) == min(map(cost, fitting))
