"""A cycle that the ranker must learn, resume, round trip, shares, cold items."""

from pathlib import Path

import numpy as np
import pytest

from recsys.data.sequences import Sequences
from recsys.data.split import Cases, Split
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError, DataError
from recsys.heads.fusion import FusedRanker, FusionConfig, fit_ranker
from recsys.types import Queries

N = 12
CONFIG = FusionConfig.parse(
    {"encoder": {"dim": 16, "blocks": 1, "max_length": 8, "dropout": 0.1}, "training": {"epochs": 25, "batch_size": 8, "learning_rate": 0.01, "patience": 30}}
)


class Table:
    space_id = "space"

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def aligned_to(self, vocabulary: Vocabulary) -> np.ndarray:
        return self.values


def cycle_split() -> Split:
    """Item i is always followed by i + 1 modulo N; item N exists and has no interaction."""
    rows = [(np.arange(10) + start) % N for start in range(N)] * 2
    none = Cases.of_rows([])
    users = Vocabulary(str(u) for u in range(len(rows)))
    return Split("leave_last_out", users, Vocabulary(str(i) for i in range(N + 1)), Sequences.of_rows(rows), none, none, none, np.zeros(N + 1, dtype=bool), "d")


def tables() -> dict[str, Table]:
    values = np.random.default_rng(0).normal(size=(N + 1, 20)).astype(np.float32)
    values[N] = values[3] + 0.01
    return {"text": Table(values)}


def fit(with_text: bool, **more: object):
    return fit_ranker(CONFIG, cycle_split(), tables() if with_text else {}, seed=0, **({"validate": lambda s: float(s.items().std())} | more))


@pytest.fixture(scope="module")
def fused() -> FusedRanker:
    count = iter(range(10**6))
    return fit(True, validate=lambda s: float(next(count))).ranker


@pytest.fixture(scope="module")
def queries() -> Queries:
    return Queries(np.array([-1, 0, 1]), (np.array([0, 1, 2]), np.array([5]), np.arange(10)))


@pytest.mark.parametrize("with_text", [False, True])
def test_learns_a_cycle(with_text: bool) -> None:
    count = iter(range(10**6))
    ranker = fit(with_text, validate=lambda s: float(next(count))).ranker
    histories = tuple((np.arange(5) + s) % N for s in range(N))
    scores = ranker.score(Queries(np.full(N, -1), histories), np.arange(N))
    assert scores.argmax(1).tolist() == [(h[-1] + 1) % N for h in histories]
    assert ranker.scorable_items()[N] == with_text


def test_cold_item_with_the_text_of_a_warm_one_takes_its_place(fused: FusedRanker) -> None:
    scores = fused.score(Queries.of_history(np.array([0, 1, 2])), np.arange(N + 1))[0]
    assert N in np.argsort(-scores)[:3]
    grown = fused.with_items({"text": tables()["text"].values[N:]})
    np.testing.assert_allclose(grown.items()[N + 1], fused.items()[N], atol=1e-5)
    np.testing.assert_array_equal(grown.items()[: N + 1], fused.items())
    with pytest.raises(DataError):
        fused.with_items({})


def test_shares_sum_to_the_score_and_a_cold_item_has_no_id_share(fused: FusedRanker, queries: Queries) -> None:
    shares = fused.shares(queries, np.arange(N + 1))
    np.testing.assert_allclose(sum(shares.values()), fused.score(queries, np.arange(N + 1)), atol=1e-4)
    assert (shares["id"][:, N] == 0).all()


def test_parts_are_what_the_shares_are_made_of(queries: Queries) -> None:
    config = CONFIG.model_copy(update={"gate": False, "projection": False})
    plain = fit_ranker(config, cycle_split(), tables(), seed=0, validate=lambda s: float(s.items().std())).ranker
    parts = plain.parts()
    assert list(parts) == ["id", "text"] and not parts["id"][N].any()
    np.testing.assert_allclose(sum(parts.values()), plain.items(), atol=1e-6)
    for name, share in plain.shares(queries, np.arange(N + 1)).items():
        np.testing.assert_allclose(plain.represent(queries) @ parts[name].T, share, atol=1e-5)
    # Without a gate all weigh one, and an item that nobody took has no ID.
    gates = plain.gates(np.array([0, 5]))
    assert gates["id"].tolist() == [0, 1] and gates["text"].tolist() == [1, 1]


def test_gates_are_the_weights_of_the_parts(fused: FusedRanker) -> None:
    counts = np.bincount(cycle_split().train.item_nums, minlength=N + 1)
    gates = fused.gates(counts)
    np.testing.assert_allclose(sum(gates.values()), np.where(counts > 0, 2.0, 1.0), atol=1e-6)
    assert gates["id"][N] == 0 and gates["text"][N] == 1
    # The text of item N is that of item 3, but for what standardising makes of 0.01: alike but for the gate.
    text = fused.parts()["text"]
    np.testing.assert_allclose(text[N] / gates["text"][N], text[3] / gates["text"][3], atol=0.05 * np.abs(text).max())


def test_batch_equals_single_and_empty_history_is_finite(fused: FusedRanker, queries: Queries) -> None:
    together = fused.represent(queries)
    for row in range(len(queries)):
        np.testing.assert_allclose(fused.represent(queries.slice(row, row + 1))[0], together[row], atol=1e-5)
    assert np.isfinite(fused.represent(Queries.of_history(np.zeros(0, dtype=np.int64)))).all()
    with pytest.raises(DataError):
        fused.represent(Queries.of_history(np.array([99])))


def test_save_load_round_trip(fused: FusedRanker, queries: Queries, tmp_path: Path) -> None:
    fused.save(tmp_path)
    loaded = FusedRanker.load(tmp_path)
    np.testing.assert_array_equal(loaded.items(), fused.items())
    np.testing.assert_array_equal(loaded.represent(queries), fused.represent(queries))
    assert loaded.spaces == fused.spaces
    with pytest.raises(ArtifactError):
        FusedRanker.load(tmp_path / "none")


def test_a_resumed_training_equals_an_undisturbed_one(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(done: int, total: int, numbers: dict[str, float]) -> None:
        if done == 7:
            raise KilledError

    plain = fit(True)
    with pytest.raises(KilledError):
        fit(True, checkpoint=tmp_path, checkpoint_seconds=0.0, progress=kill)
    resumed = fit(True, checkpoint=tmp_path, checkpoint_seconds=0.0)
    assert resumed.history == plain.history
    np.testing.assert_array_equal(resumed.ranker.items(), plain.ranker.items())
    with pytest.raises(ArtifactError):
        fit(False, checkpoint=tmp_path)
