from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.errors import DataError, NonFiniteError, SpaceMismatchError, UnknownIdError
from recsys.serving.bundle import load_bundle
from recsys.serving.recommender import Recommender
from recsys.types import BoolArray, FloatArray, IntArray, Queries
from tests.serving import making


@pytest.fixture
def model(tmp_path: Path) -> Recommender:
    return making.recommender(tmp_path)


def test_recommendations_are_the_best_of_the_offline_scores(model: Recommender) -> None:
    ranker, histories, ids = making.ranker(), making.histories(), making.catalog().items.ids
    everything = np.arange(making.N_ITEMS)
    scores = ranker.score(Queries(np.arange(making.N_USERS), histories), everything)
    answer = model.recommend(users=list(making.users().ids), k=10)
    for num, user in enumerate(making.users().ids):
        left = [i for i in range(making.N_ITEMS) if i not in histories[num] and ids[i] != making.UNSCORABLE]
        best = sorted(left, key=lambda i: (-scores[num, i], i))[:10]
        assert answer.item_ids(user) == [ids[i] for i in best]
        rows = answer.frame.filter(pl.col("user_id") == user)
        np.testing.assert_allclose(rows["score"], scores[num, best], atol=1e-5)
        assert rows["rank"].to_list() == list(range(1, 11))


def test_shares_add_up_to_the_score(model: Recommender) -> None:
    frame = model.recommend(users=["u0", "u5"]).frame
    assert frame.columns == ["user_id", "item_id", "score", "rank", "share_id", "share_text"]
    np.testing.assert_allclose(frame["share_id"] + frame["share_text"], frame["score"], atol=1e-5)


def test_score_and_recommend_agree_and_seen_items_come_back_on_request(model: Recommender) -> None:
    answer = model.recommend(users=["u3"], k=100, exclude_seen=False).frame
    assert len(answer) == making.N_ITEMS - 1  # all but the one that cannot be scored
    scored = model.score("u3", answer["item_id"].to_list())
    np.testing.assert_allclose(scored["score"], answer["score"], atol=1e-5)
    seen = set(model.user_history("u3"))
    assert seen.isdisjoint(model.recommend(users=["u3"], k=100).item_ids("u3"))


def test_a_user_and_the_same_history_get_the_same_scores(model: Recommender) -> None:
    by_user = model.recommend(users=["u3"])
    by_history = model.recommend(history=model.user_history("u3"))
    assert by_user.item_ids("u3") == by_history.item_ids()


def test_what_cannot_be_scored_is_null_with_the_reason(model: Recommender) -> None:
    frame = model.score("u0", ["i1", "nowhere", making.UNSCORABLE, "i1", making.ODD_ID])
    assert frame["item_id"].to_list() == ["i1", "nowhere", making.UNSCORABLE, "i1", making.ODD_ID]
    assert frame["reason"].to_list() == [None, "unknown item", "not scorable", None, None]
    assert frame["score"].is_null().to_list() == [False, True, True, False, False]
    assert model.score("u0", ["nowhere"])["score"].to_list() == [None]
    assert len(model.score("u0", [])) == 0


def test_mistakes_are_named(model: Recommender) -> None:
    with pytest.raises(UnknownIdError, match=r"unknown user_id: 'who'.*pass history="):
        model.recommend(users=["who"])
    with pytest.raises(UnknownIdError, match="'a', 'b'"):
        model.recommend(users=["a", "u1", "b"])
    with pytest.raises(UnknownIdError, match="unknown item_id: 'nowhere'"):
        model.recommend(history=["i1", "nowhere"])
    with pytest.raises(UnknownIdError, match="unknown item_id: 'nowhere'"):
        model.similar("nowhere")
    with pytest.raises(DataError, match=r"write \['u1'\]"):
        model.recommend(users="u1")
    with pytest.raises(DataError, match=r"ids are strings, got 196 \(int\)"):
        model.recommend(users=[196])  # type: ignore[list-item]
    with pytest.raises(DataError, match="pass users="):
        model.recommend()
    with pytest.raises(DataError, match="k must be 1"):
        model.recommend(users=["u1"], k=0)
    with pytest.raises(DataError, match="not scorable"):
        model.similar(making.UNSCORABLE)


class _Tied:
    """All items are equally good, or not numbers at all."""

    spaces: dict[str, str] = {}  # noqa: RUF012
    n_items = making.N_ITEMS

    def __init__(self, value: float) -> None:
        self.value = value

    def scorable_items(self) -> BoolArray:
        return np.ones(self.n_items, dtype=np.bool_)

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        return np.full((len(queries), len(item_nums)), self.value, dtype=np.float32)

    def represent(self, queries: Queries) -> FloatArray:
        return np.full((len(queries), 2), self.value / 2, dtype=np.float32)

    def items(self) -> FloatArray:
        return np.ones((self.n_items, 2), dtype=np.float32)

    def shares_of(self, states: FloatArray, item_nums: IntArray) -> dict[str, FloatArray]:
        return {"id": np.full((len(states), len(item_nums)), self.value, dtype=np.float32)}

    def with_items(self, vectors: object) -> _Tied:
        raise AssertionError


def test_ties_go_to_the_lower_item_num(tmp_path: Path) -> None:
    bundle = replace(load_bundle(making.bundle(tmp_path / "b").path), ranker=_Tied(1.0))
    assert Recommender(bundle).recommend(history=["i0", "i2"], k=4).item_ids() == ["i1", "i3", "i4", "i5"]


def test_a_damaged_model_never_answers(tmp_path: Path) -> None:
    bundle = replace(load_bundle(making.bundle(tmp_path / "b").path), ranker=_Tied(float("nan")))
    with pytest.raises(NonFiniteError, match="small"):
        Recommender(bundle).recommend(history=["i0"])


def test_similar_is_cosine_without_the_item_itself(model: Recommender) -> None:
    vectors = making.ranker().items()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    cosine = unit[: making.N_ITEMS - 1] @ unit[4]
    expected = [i for i in np.argsort(-cosine, kind="stable") if i != 4][:5]
    frame = model.similar("i4", k=5)
    assert frame["item_id"].to_list() == [making.catalog().items.ids[i] for i in expected]
    np.testing.assert_allclose(frame["score"], cosine[expected], atol=1e-5)
    assert len(model.similar("i4", k=1000)) == making.N_ITEMS - 2


def test_a_new_item_is_scored_recommended_and_found(model: Recommender) -> None:
    before = model.recommend(users=["u1"], k=5, exclude_seen=False)
    model.add_items([{"item_id": "new", "title": "title 4 of the film"}, {"item_id": "newer", "title": "something else", "categories": ["war"]}])
    assert model.score("u1", ["new"])["reason"].to_list() == [None]
    frame = model.recommend(users=["u1"], k=1000).frame
    mine = frame.filter(pl.col("item_id") == "new")
    assert len(mine) == 1
    assert mine["share_id"].to_list() == [0.0]
    assert model.similar("new", k=3)["item_id"].len() == 3
    assert "new" in model.similar("i4", k=1000)["item_id"].to_list()
    assert model.recommend(history=["new"], k=1000).item_ids().count("new") == 0
    assert model.version == "0" * 12 + "+2"
    after = model.recommend(users=["u1"], k=1000, exclude_seen=False).frame.filter(~pl.col("item_id").is_in(["new", "newer"])).head(5)
    assert after["item_id"].to_list() == before.item_ids("u1")


def test_new_items_are_taken_all_or_none(model: Recommender) -> None:
    good = {"item_id": "new", "title": "fine"}
    for bad, message in [
        ({"item_id": "i1", "title": "held"}, "holds already"),
        (good, "given twice"),
        ({"item_id": "blank", "title": "  "}, "without text: 'blank'"),
        ({"item_id": "none"}, "without text: 'none'"),
        ({"title": "no id"}, "ids are strings"),
        ({"item_id": "x", "title": "t", "colour": "red"}, "colour"),
        ({"item_id": "x", "title": 5}, "must be a string, got 5"),
        ({"item_id": "x", "title": "t", "categories": "war"}, "must be a list of strings"),
    ]:
        with pytest.raises(DataError, match=message):
            model.add_items([good, bad])
    assert model.score("u1", ["new"])["reason"].to_list() == ["unknown item"]
    assert model.version == "0" * 12


def test_an_encoder_of_another_space_is_refused(tmp_path: Path) -> None:
    bundle = load_bundle(making.bundle(tmp_path / "b").path)
    model = Recommender(bundle, load_encoder=lambda config: making.HashedEncoder(making.TEXT_DIM, template="{title}!"))
    with pytest.raises(SpaceMismatchError, match="signal 'text'"):
        model.add_items([{"item_id": "new", "title": "t"}])
    with pytest.raises(DataError, match="no encoder"):
        Recommender(replace(bundle, encoders={})).add_items([{"item_id": "new", "title": "t"}])
    with pytest.raises(DataError, match="looks at pictures alone"):
        Recommender(replace(bundle, encoders={"text": {"kind": "image", "name": "poster", "model": "any"}})).add_items([{"item_id": "new", "title": "t"}])


def test_readers_see_whole_states_while_items_are_added(model: Recommender) -> None:
    failures: list[Exception] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                model.recommend(users=["u1"], k=1000)
                model.similar("i4")
            except Exception as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(15):
        model.add_items([{"item_id": f"new{n}", "title": f"new title {n}"}])
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []


def test_titles_cannot_write_html_or_move_the_cursor(model: Recommender) -> None:
    answer = model.recommend(users=["u0"], k=100, exclude_seen=False)
    assert "\x1b" not in repr(answer)
    assert "u0" in repr(answer)
    assert "<script>" not in answer._repr_html_()
    assert "&lt;script&gt;" in answer._repr_html_()
