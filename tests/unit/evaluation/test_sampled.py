from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from recsys.data.sequences import Sequences
from recsys.data.split import Cases, Split
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError, DataError, NonFiniteError, SpaceMismatchError
from recsys.evaluation.sampled import Negatives, evaluate_sampled
from recsys.testing.scorers import ConstantScorer, MatrixScorer, OracleScorer, RandomScorer

USERS, ITEMS = 30, 60
FROZEN = [[59, 31, 22], [0, 24, 21]]


def split_of(n_items: int = ITEMS, digest: str = "d") -> Split:
    """User u read the five items after u and is tested on item u."""
    histories = [np.arange(u + 1, u + 6) for u in range(USERS)]
    test = Cases.of_rows([(u, histories[u][:3], histories[u], u) for u in range(USERS)])
    users, items = (Vocabulary(f"{letter}{i}" for i in range(n)) for letter, n in (("u", USERS), ("i", n_items)))
    none = Cases.of_rows([])
    return Split("leave_last_out", users, items, Sequences.of_rows(histories), none, test, none, np.zeros(n_items, dtype=bool), digest)


def test_negatives_are_distinct_and_neither_target_nor_history():
    negatives = Negatives.draw(split_of())
    assert negatives.item_nums.shape == (USERS, 19)
    for user, row in enumerate(negatives.item_nums.tolist()):
        assert len(set(row)) == 19
        assert not set(row) & set(range(user, user + 6))


def test_the_list_is_the_same_on_every_machine():
    """Frozen: another list would make published figures another experiment."""
    negatives = Negatives.draw(split_of(), count=3, seed=5)
    assert negatives.item_nums[:2].tolist() == FROZEN
    assert negatives.item_nums.tolist() == Negatives.draw(split_of(), count=3, seed=5).item_nums.tolist()
    assert negatives.item_nums.tolist() != Negatives.draw(split_of(), count=3, seed=6).item_nums.tolist()
    np.testing.assert_array_equal(Negatives.draw(split_of(), count=19, seed=5).item_nums[:, :3], negatives.item_nums)


def test_every_item_left_is_drawn_when_there_are_just_enough():
    negatives = Negatives.draw(split_of(40), count=34)
    assert sorted(negatives.item_nums[2].tolist()) == [0, 1, *range(8, 40)]
    with pytest.raises(DataError, match="user_id 'u0' has 34 items left of 40; 35 negatives"):
        Negatives.draw(split_of(40), count=35)


def test_save_and_load(tmp_path: Path):
    negatives = Negatives.draw(split_of())
    negatives.save(tmp_path / "n.safetensors")
    loaded = Negatives.load(tmp_path / "n.safetensors")
    np.testing.assert_array_equal(loaded.item_nums, negatives.item_nums)
    assert (loaded.part, loaded.split_digest, loaded.seed, loaded.digest) == ("test", "d", 0, negatives.digest)


def test_a_changed_or_foreign_file_is_refused(tmp_path: Path):
    path = tmp_path / "n.safetensors"
    with pytest.raises(ArtifactError, match="not a saved list"):
        Negatives.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="not a saved list"):
        Negatives.load(path)
    path.write_bytes(safetensors.numpy.save({"item_nums": np.zeros((1, 2), dtype=np.int64)}))
    with pytest.raises(ArtifactError, match="not a saved list"):
        Negatives.load(path)
    Negatives.draw(split_of()).save(path)
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="not the one that was saved"):
        Negatives.load(path)


def test_known_scorers_get_what_arithmetic_says():
    split = split_of()
    negatives = Negatives.draw(split)
    assert evaluate_sampled(ConstantScorer(ITEMS), split, negatives).mean("hit@1") == pytest.approx(1 / 20, abs=1e-15)
    assert evaluate_sampled(OracleScorer(ITEMS, {u: u for u in range(USERS)}), split, negatives).mean("hit@1") == 1
    result = evaluate_sampled(RandomScorer(ITEMS), split, negatives, ks=(1, 5), chunk=7)
    for user in range(USERS):
        scores = RandomScorer(ITEMS).score(split.test.queries().slice(user, user + 1), np.array([user, *negatives.item_nums[user]]))[0]
        assert result.better[user] == (scores[1:] > scores[0]).sum()
    assert result.n_candidates == 20


def test_items_that_are_not_scorable_rank_last():
    split = split_of()
    negatives = Negatives.draw(split)
    scorable = np.ones(ITEMS, dtype=bool)
    scorable[[*negatives.item_nums[0, :4], 1]] = False
    result = evaluate_sampled(ConstantScorer(ITEMS, scorable=scorable), split, negatives)
    assert (result.better[0], result.tied[0]) == (0, 16)
    assert result.values("hit@1")[1] == 0


def test_another_split_or_scorer_is_refused():
    negatives = Negatives.draw(split_of())
    with pytest.raises(SpaceMismatchError, match="negatives belong to split 'd', this is split 'other'"):
        evaluate_sampled(ConstantScorer(ITEMS), split_of(digest="other"), negatives)
    with pytest.raises(SpaceMismatchError, match="fitted on 61 items, the split has 60"):
        evaluate_sampled(ConstantScorer(61), split_of(), negatives)
    with pytest.raises(NonFiniteError, match=r"user_num 3 \(user_id 'u3'\)"):
        scores = np.zeros((USERS, ITEMS))
        scores[3, 3] = np.nan
        evaluate_sampled(MatrixScorer(scores), split_of(), negatives)
