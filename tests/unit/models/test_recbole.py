"""The RecBole adapter: ids, leaks, agreement with our own EASE, errors of the subprocess. Each fit starts a process (seconds)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from recsys.data.interactions import Interactions
from recsys.data.sequences import Sequences
from recsys.data.split import Cases, Split, SplitConfig, make_split
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError, ConfigError, DataError, NonFiniteError, RecsysError
from recsys.evaluation.evaluate import evaluate
from recsys.models import _recbole_process, _recbole_worker
from recsys.models._recbole_process import RecBoleProcess
from recsys.models.ease import Ease, EaseConfig
from recsys.models.recbole import RecBoleBackbone, RecBoleConfig, RecBoleFit, RecBoleScorer, fit, offered_models, write_atomic_file
from recsys.types import UNKNOWN_NUM, Backbone, IntArray, Queries, Scorer

ODD_IDS = ["NA", "null", '"quoted"', "a b", "é", "1.0", "01"]
EIGHT = ("BPR", "LightGCN", "NeuMF", "SASRec", "EASE", "GRU4Rec", "MultiVAE", "SGL")


@pytest.fixture(scope="module")
def split() -> Split:
    """Forty users in two groups that share no item (even users, even items), 30 items in shuffled rows, some with ids that
    readers of tables like to spoil, and one that nobody meets."""
    rng = np.random.default_rng(0)
    names = [ODD_IDS[k] if k < len(ODD_IDS) else f"i{k}" for k in range(30)]
    events = [(f"u{user}", names[2 * item + user % 2], step) for user in rng.permutation(40) for step, item in enumerate(rng.permutation(15)[:10])]
    events += [("short", names[0], 0)]
    items = Vocabulary([*(names[k] for k in rng.permutation(30)), "nobody's"])
    return make_split(SplitConfig(), Interactions.of_frame(pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row"), items))


def config(model: str, **options: Any) -> RecBoleConfig:
    return RecBoleConfig(model=model, threads=1, silence_seconds=120, **options)


@pytest.fixture(scope="module")
def ease(split: Split) -> Iterator[RecBoleFit]:
    fitted = fit(config("EASE", parameters={"reg_weight": 20.0}), split, seed=0)
    with fitted.scorer:
        yield fitted


@pytest.fixture(scope="module")
def bpr(split: Split) -> Iterator[RecBoleFit]:
    # Small batches: 320 interactions.
    fitted = fit(config("BPR", parameters={"learning_rate": 0.02, "train_batch_size": 64, "embedding_size": 16}, epochs=40, patience=40), split, seed=0)
    with fitted.scorer:
        yield fitted


@pytest.fixture(scope="module")
def gru(split: Split) -> Iterator[RecBoleFit]:
    parameters = {"embedding_size": 8, "hidden_size": 8, "MAX_ITEM_LIST_LENGTH": 5}
    fitted = fit(config("GRU4Rec", parameters=parameters, epochs=3, max_seconds=1e-6), split, seed=0)
    with fitted.scorer:
        yield fitted


def of_training(split: Split) -> Queries:
    """Every user with the history that training holds."""
    return Queries(np.arange(len(split.users)), split.train)


def group_of(split: Split) -> IntArray:
    """(n_items,): 0 or 1, and -1 for the item that nobody meets."""
    group = np.full(split.n_items, -1)
    for user_id, row in zip(split.users.ids, split.train, strict=True):
        group[row] = 0 if user_id == "short" else int(user_id[1:]) % 2
    return group


# --- what is handed over ------------------------------------------------------------------------------------------------


def test_the_atomic_file_holds_the_training_interactions_and_nothing_else(split: Split, tmp_path: Path) -> None:
    write_atomic_file(split, tmp_path / "train.inter")
    header, *lines = (tmp_path / "train.inter").read_text(encoding="utf-8").split("\n")
    assert header == "user_id:token\titem_id:token\ttimestamp:float" and lines.pop() == ""
    rows: dict[str, list[str]] = {user_id: [] for user_id in split.users.ids}
    for line in lines:
        user_id, item_id, position = line.split("\t")
        assert int(position) == len(rows[user_id])
        rows[user_id].append(item_id)
    assert [rows[user_id] for user_id in split.users.ids] == [split.items.ids_of(row) for row in split.train]


def test_what_recbole_trains_on_is_that_file(ease: RecBoleFit, split: Split, tmp_path: Path) -> None:
    """EASE keeps its interaction matrix among its weights: read it back, by outside ids."""
    ease.scorer.save(tmp_path)
    weights, rows = load_file(tmp_path / "weights.safetensors"), json.loads((tmp_path / "rows.json").read_text())
    indptr, indices = weights["other/interaction_matrix.indptr"], weights["other/interaction_matrix.indices"]
    found = {user_id: {rows["items"][i - 1] for i in indices[indptr[r] : indptr[r + 1]]} for r, user_id in enumerate(rows["users"], start=1)}
    assert found == {user_id: set(split.items.ids_of(row)) for user_id, row in zip(split.users.ids, split.train, strict=True)}
    assert sorted(f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*") if f.is_file()) == [
        "facts.json",
        "ids.json",
        "rows.json",
        "settings.json",
        "train/train.inter",
        "weights.safetensors",
    ]


@pytest.mark.parametrize("bad", ["a\tb", "a\nb", "", "[PAD]", "a\u2028b"])
def test_an_id_that_an_atomic_file_cannot_hold_is_an_error(bad: str, tmp_path: Path) -> None:
    events = [("u", bad, 0), ("u", "x", 1), ("u", "y", 2)]
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row")
    broken = make_split(SplitConfig(), Interactions.of_frame(frame, Vocabulary([bad, "x", "y"])))
    with pytest.raises(DataError, match="item_id"):
        write_atomic_file(broken, tmp_path / "train.inter")


# --- known answers ------------------------------------------------------------------------------------------------------


def test_its_ease_is_our_ease(ease: RecBoleFit, split: Split) -> None:
    """The two share no code: equal scores mean that users, items and interactions kept their ids on the way there and back."""
    ours, queries, every = Ease.fit(EaseConfig(regularisation=20.0), split), of_training(split), np.arange(split.n_items)
    scorable = ours.scorable_items()
    np.testing.assert_array_equal(ease.scorer.scorable_items(), scorable)
    np.testing.assert_allclose(ease.scorer.score(queries, every)[:, scorable], ours.score(queries, every)[:, scorable], atol=1e-5)
    assert not isinstance(ease.scorer, Backbone)


def test_ease_recovers_the_planted_groups_exactly(ease: RecBoleFit, split: Split) -> None:
    group, scores = group_of(split), ease.scorer.score(of_training(split), np.arange(split.n_items))
    for user_num, row in enumerate(split.train):
        if len(row) > 1:
            own = group == group[row[0]]
            own_unseen = own.copy()
            own_unseen[row] = False
            assert scores[user_num, own_unseen].min() > np.abs(scores[user_num, group == 1 - group[row[0]]]).max()


def test_bpr_recovers_the_planted_groups(bpr: RecBoleFit, split: Split) -> None:
    group = group_of(split)
    scores = bpr.scorer.score(of_training(split), np.arange(split.n_items))
    scores[:, group < 0] = -np.inf
    longer = np.flatnonzero(split.train.lengths > 1)
    first = np.argsort(-scores[longer], axis=1)[:, :10]
    own = np.array([group[split.train[user][0]] for user in longer])
    assert (group[first] == own[:, None]).mean() > 0.95


def test_early_stopping_sees_our_validation(ease: RecBoleFit, bpr: RecBoleFit, gru: RecBoleFit, split: Split) -> None:
    for fitted in (ease, bpr, gru):
        best = fitted.history[fitted.best_epoch - 1]
        assert best["ndcg@10"] == max(numbers["ndcg@10"] for numbers in fitted.history)
        # float32 products in another order may part ties.
        assert evaluate(fitted.scorer, split.validation).mean("ndcg@10") == pytest.approx(best["ndcg@10"], abs=1e-6)


# --- the contract -------------------------------------------------------------------------------------------------------


def check_contract(scorer: RecBoleScorer, split: Split) -> None:
    queries, every = split.test.queries(), np.arange(split.n_items)
    scorable, scores = scorer.scorable_items(), scorer.score(queries, every)
    assert isinstance(scorer, Scorer) and scorer.n_items == split.n_items and scorer.item_digest == split.items.digest
    np.testing.assert_array_equal(scorable, split.item_counts() > 0)
    assert scores.shape == (len(queries), split.n_items) and scores.dtype == np.float32 and np.isfinite(scores).all()
    assert scores[:, scorable].std() > 0
    some = np.flatnonzero(scorable)[::-3].copy()
    np.testing.assert_allclose(scorer.score(queries, some), scores[:, some], rtol=1e-5, atol=1e-5)
    alone = np.concatenate([scorer.score(queries.slice(i, i + 1), every) for i in range(0, len(queries), 9)])
    np.testing.assert_allclose(alone, scores[::9], rtol=1e-4, atol=1e-5)
    if isinstance(scorer, RecBoleBackbone):
        assert isinstance(scorer, Backbone)
        np.testing.assert_allclose(scorer.represent(queries) @ scorer.items().T, scores, rtol=1e-4, atol=1e-5)
        assert (scorer.items()[~scorable] == 0).all()


def test_the_contract_of_each_kind(ease: RecBoleFit, bpr: RecBoleFit, gru: RecBoleFit, split: Split) -> None:
    for fitted in (ease, bpr, gru):
        check_contract(fitted.scorer, split)


def test_a_saved_scorer_scores_alike(ease: RecBoleFit, bpr: RecBoleFit, gru: RecBoleFit, split: Split, tmp_path: Path) -> None:
    queries, every = split.test.queries(), np.arange(split.n_items)
    for fitted in (ease, bpr, gru):
        folder = tmp_path / fitted.scorer.name
        fitted.scorer.save(folder)
        with RecBoleScorer.load(folder, threads=1) as loaded:
            assert type(loaded) is type(fitted.scorer)
            np.testing.assert_array_equal(loaded.score(queries, every), fitted.scorer.score(queries, every))


def test_who_training_never_saw_is_an_error_not_a_number(bpr: RecBoleFit, gru: RecBoleFit, split: Split) -> None:
    some = split.train[0]
    with pytest.raises(DataError, match="a user outside the vocabulary"):
        bpr.scorer.score(Queries.of_history(some), np.arange(3))
    assert np.isfinite(gru.scorer.score(Queries.of_history(some), np.arange(3))).all()
    for nothing in (some[:0], np.array([split.items.num("nobody's")])):
        with pytest.raises(DataError, match="no item that training saw"):
            gru.scorer.score(Queries(np.array([UNKNOWN_NUM, 0]), [some, nothing]), np.arange(3))
    with pytest.raises(DataError, match="no item_num"):
        gru.scorer.score(Queries.of_history(np.array([split.n_items])), np.arange(3))


def test_a_sequential_state_reads_the_order_and_the_last_items(gru: RecBoleFit, split: Split) -> None:
    row = np.array(split.items.nums([f"i{k}" for k in range(10, 20)]))
    assert isinstance(gru.scorer, RecBoleBackbone)
    whole, last, turned = gru.scorer.represent(Queries(np.full(3, UNKNOWN_NUM), [row, row[-5:], row[::-1].copy()]))
    np.testing.assert_allclose(whole, last, atol=1e-6)
    assert np.abs(whole - turned).max() > 1e-4


# --- numbers that are none ----------------------------------------------------------------------------------------------


@contextmanager
def poisoned(fitted: RecBoleFit, folder: Path, name: str, place: Any, value: float) -> Iterator[RecBoleScorer]:
    """The saved model with some values of one of its arrays overwritten."""
    fitted.scorer.save(folder)
    weights = load_file(folder / "weights.safetensors")
    weights[f"other/{name}"][place] = value
    save_file(weights, folder / "weights.safetensors")
    with RecBoleScorer.load(folder, threads=1) as scorer:
        yield scorer


def test_a_score_that_is_nan_names_model_user_and_item(ease: RecBoleFit, split: Split, tmp_path: Path) -> None:
    """EASE multiplies the user's interactions: one that is NaN spoils this row and no other."""
    user_num, starts = 4, load_file(ease.scorer._folder / "weights.safetensors")["other/interaction_matrix.indptr"]
    row, others = ease.scorer._user_rows[user_num], np.setdiff1d(np.arange(len(split.users)), [user_num])
    with poisoned(ease, tmp_path, "interaction_matrix.data", starts[row], np.nan) as scorer:
        assert np.isfinite(scorer.score(Queries(others, [split.train[0]] * len(others)), np.arange(split.n_items))).all()
        with pytest.raises(NonFiniteError, match=rf"EASE scored nan for user_num {user_num} \(user_id '{split.users.ids[user_num]}'\), item_num \d+ \(item_id"):
            evaluate(scorer, split.test, split=split)


def test_plus_infinity_is_no_score(ease: RecBoleFit, split: Split, tmp_path: Path) -> None:
    with poisoned(ease, tmp_path, "item_similarity", ..., np.inf) as scorer, pytest.raises(NonFiniteError, match="EASE scored inf for user_num"):
        scorer.score(of_training(split), np.arange(split.n_items))


def test_minus_infinity_means_never(ease: RecBoleFit, split: Split, tmp_path: Path) -> None:
    """It ranks below every score, finite as the evaluator asks, and such items tie among themselves."""
    never, lowest = split.items.nums(["i9", "i12"]), np.finfo(np.float32).min
    with poisoned(ease, tmp_path, "item_similarity", (..., ease.scorer._item_rows[never]), -np.inf) as scorer:
        scores = scorer.score(of_training(split), np.arange(split.n_items))
    rest = np.setdiff1d(np.flatnonzero(ease.scorer.scorable_items()), never)
    assert (scores[:, never] == lowest).all() and (scores[:, rest] > lowest).all() and np.isfinite(scores).all()


def test_a_training_that_ends_in_nan_is_an_error_not_a_perfect_model(split: Split, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NaN is neither above nor equal to a target: counted as it stands, such a model would rank every target first."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import sys, runpy\n"
        "from recsys.models import _recbole_worker as worker\n"
        "ask = worker.Session._full_sort\n"
        "def spoilt(self, inputs):\n"
        "    found = ask(self, inputs).clone()\n"
        "    found[2, 5] = float('nan')\n"
        "    return found\n"
        "worker.Session._full_sort = spoilt\n"
        "worker.main(worker.Path(sys.argv[1]), worker.Path(sys.argv[2]), int(sys.argv[3]))\n"
    )
    monkeypatch.setattr(_recbole_process, "WORKER", script)
    user = split.users.ids[split.validation.user_nums[2]]
    with pytest.raises(NonFiniteError, match=rf"BPR scored nan after epoch 1 for user_num 2 \(user_id '{user}'\), a validation case"):
        fit(config("BPR", epochs=2), split, seed=0)


# --- configuration ------------------------------------------------------------------------------------------------------


def test_the_eight_models_are_offered() -> None:
    offered = offered_models()
    assert set(EIGHT) <= {*offered["general"], *offered["sequential"]} and "DeepFM" not in {*offered["general"], *offered["sequential"]}


def test_unknown_names_and_settings_of_ours_are_errors_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match="did you mean 'LightGCN'"):
        RecBoleConfig(model="lightGCN")
    with pytest.raises(ConfigError, match="did you mean 'embedding_size'"):
        RecBoleConfig(model="BPR", parameters={"embeding_size": 8})
    for name in ("epochs", "data_path", "eval_args", "seed", "use_gpu", "benchmark_filename", "load_col"):
        with pytest.raises(ConfigError, match="is set by the adapter"):
            RecBoleConfig(model="BPR", parameters={name: 1})
    assert RecBoleConfig.parse(json.loads(config("BPR", parameters={"embedding_size": 8}).model_dump_json())).parameters == {"embedding_size": 8}


def test_numbers_that_yaml_leaves_as_text_are_numbers() -> None:
    parsed = RecBoleConfig.parse(yaml.safe_load("{model: SASRec, parameters: {learning_rate: 1e-3, loss_type: BPR, hidden_act: gelu}}"))
    assert parsed.parameters == {"learning_rate": 1e-3, "loss_type": "BPR", "hidden_act": "gelu"}


def test_the_cap_stops_after_the_epoch_that_passes_it_and_says_so(gru: RecBoleFit, bpr: RecBoleFit) -> None:
    assert len(gru.history) == 1 and gru.capped is not None and gru.capped.startswith("stopped after epoch 1 of 3")
    assert len(bpr.history) == 40 and bpr.capped is None
    assert bpr.settings == {"embedding_size": 16, "learner": "adam", "learning_rate": 0.02, "train_batch_size": 64, "weight_decay": 0.0}


def test_a_fit_states_its_parameters_and_the_memory_of_its_process(ease: RecBoleFit, bpr: RecBoleFit, split: Split) -> None:
    trained = int((split.item_counts() > 0).sum())
    assert bpr.parameters == 16 * (len(split.users) + 1 + trained + 1)  # a row of padding each
    assert ease.parameters == 0
    assert bpr.peak_mb > 100  # torch alone


# --- the subprocess -----------------------------------------------------------------------------------------------------


def gone(pid: int) -> bool:
    """The process ended (a zombie that waits for its reaper counts)."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def worker_for(code: str, monkeypatch: pytest.MonkeyPatch, folder: Path, silence: float = 60.0) -> RecBoleProcess:
    """A worker that runs `code` in place of RecBole."""
    script = folder / "worker.py"
    script.write_text(code)
    monkeypatch.setattr(_recbole_process, "WORKER", script)
    return RecBoleProcess(folder, threads=1, silence_seconds=silence)


def test_silence_ends_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    process = worker_for("import sys, time\nprint('deep in thought', file=sys.stderr, flush=True)\ntime.sleep(600)", monkeypatch, tmp_path, silence=1.5)
    with pytest.raises(RecsysError, match=r"said nothing for 1.5 s \(asked to train\).*silence_seconds.*\n.*deep in thought"):
        process.ask({"do": "train"})
    assert gone(process.pid)
    with pytest.raises(RecsysError, match="was closed"):
        process.ask({"do": "train"})


def test_a_crash_shows_the_last_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    process = worker_for("input()\nfor n in range(99): print(end='')\nraise ValueError('the reason')", monkeypatch, tmp_path)
    with pytest.raises(RecsysError, match=r"ended with exit code 1 \(asked to train\).*\n(.*\n)*ValueError: the reason"):
        process.ask({"do": "train"})


def test_an_error_in_the_callback_ends_the_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    process = worker_for("""import time\nprint('{"epoch": 1}', flush=True)\ntime.sleep(600)""", monkeypatch, tmp_path)

    def stop(message: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.ask({"do": "train"}, stop)
    assert gone(process.pid)


def test_a_killed_worker_is_an_error_and_the_next_query_starts_another(gru: RecBoleFit, split: Split) -> None:
    queries, every = split.test.queries().slice(0, 3), np.arange(split.n_items)
    before = gru.scorer.score(queries, every)
    process = gru.scorer._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(RecsysError, match="killed by signal 9"):
        gru.scorer.score(queries, every)
    np.testing.assert_array_equal(gru.scorer.score(queries, every), before)


def test_a_killed_parent_leaves_no_orphan() -> None:
    """The worker's own watch, without RecBole: it ends while it sleeps and nobody reads from it."""
    child = f"import sys, time; sys.path.insert(0, {str(Path(_recbole_worker.__file__).parents[2])!r}); "
    child += "from recsys.models._recbole_worker import _end_with_parent; _end_with_parent(int(sys.argv[1])); print('on', flush=True); time.sleep(600)"
    start = f"subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())], stdout=subprocess.PIPE, start_new_session=True)"
    parent = f"import os, subprocess, sys; p = {start}; p.stdout.readline(); print(p.pid, flush=True); p.wait()"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        orphan = int(process.stdout.readline())
        assert not gone(orphan)
        process.kill()
        process.wait()
    deadline = time.monotonic() + 60
    while not gone(orphan) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert gone(orphan)


def test_what_recbole_says_of_a_bad_value_reaches_the_user(split: Split) -> None:
    with pytest.raises(RecsysError, match="exit code 1.*\n(.*\n)*.*Error"):
        fit(config("BPR", parameters={"embedding_size": "sixteen"}), split, seed=0)


# --- a killed fit -------------------------------------------------------------------------------------------------------

FITS: dict[str, dict[str, Any]] = {
    "BPR": {"train_batch_size": 64, "embedding_size": 8},
    "GRU4Rec": {"train_batch_size": 64, "embedding_size": 8, "hidden_size": 8, "dropout_prob": 0.5},
    "MultiVAE": {"train_batch_size": 8, "mlp_hidden_size": [8], "latent_dimension": 4, "total_anneal_steps": 20},
    "RecVAE": {"train_batch_size": 8, "hidden_dimension": 8, "latent_dimension": 4},
    "BERT4Rec": {"train_batch_size": 64, "hidden_size": 8, "inner_size": 8, "n_layers": 1},
}
"""Negatives, dropout, a step of annealing beside the weights, two optimisers in turns, masks by Python's random."""


@pytest.mark.parametrize("model", ["BPR", *(pytest.param(name, marks=pytest.mark.slow) for name in FITS if name != "BPR")])
def test_a_resumed_fit_equals_an_undisturbed_one(model: str, split: Split, tmp_path: Path) -> None:
    options, queries, every = config(model, parameters=FITS[model], epochs=4), of_training(split), np.arange(split.n_items)
    with fit(options, split, seed=0).scorer as scorer:
        expected = scorer.score(queries, every)

    def until_two(done: int, *_: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(options, split, seed=0, checkpoint=tmp_path, checkpoint_seconds=0.0, progress=until_two)
    told: list[int] = []
    resumed = fit(options, split, seed=0, checkpoint=tmp_path, progress=lambda done, *_: told.append(done))
    with resumed.scorer as scorer:
        np.testing.assert_array_equal(scorer.score(queries, every), expected)
    assert told == [3, 4] and [numbers["epoch"] for numbers in resumed.history] == [1, 2, 3, 4]


def test_a_finished_fit_is_only_loaded_and_that_of_another_or_a_damaged_one_refused(ease: RecBoleFit, split: Split, tmp_path: Path) -> None:
    options, told = config("EASE", parameters={"reg_weight": 20.0}), []
    first, again = (fit(options, split, seed=0, checkpoint=tmp_path, progress=lambda done, *_: told.append(done)) for _ in range(2))
    with first.scorer, again.scorer as scorer:
        queries, every = of_training(split), np.arange(split.n_items)
        np.testing.assert_array_equal(scorer.score(queries, every), ease.scorer.score(queries, every))
    assert told == [1] and (again.history, again.seconds, again.peak_mb) == (first.history, first.seconds, first.peak_mb)
    with pytest.raises(ArtifactError, match="a checkpoint of another training"):
        fit(options, split, seed=1, checkpoint=tmp_path)
    (tensors,) = tmp_path.glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="missing or damaged"):
        fit(options, split, seed=0, checkpoint=tmp_path)


# --- the eight models ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("model", EIGHT)
def test_each_of_the_eight_models(model: str, split: Split) -> None:
    told: list[tuple[int, int, dict[str, float]]] = []
    fitted = fit(config(model, epochs=2), split, seed=0, progress=lambda *numbers: told.append(numbers))
    with fitted.scorer as scorer:
        check_contract(scorer, split)
        assert isinstance(scorer, RecBoleBackbone) == (model in {"BPR", "LightGCN", "SASRec", "GRU4Rec", "SGL"})
    epochs = 1 if model == "EASE" else 2
    assert [(epoch, of) for epoch, of, _ in told] == [(k, epochs) for k in range(1, epochs + 1)]
    assert [numbers for _, _, numbers in told] == list(fitted.history) and fitted.capped is None


@pytest.mark.slow
def test_equal_seeds_give_equal_scores(split: Split) -> None:
    scores = []
    for seed in (0, 0, 1):
        with fit(config("LightGCN", epochs=2), split, seed=seed).scorer as scorer:
            scores.append(scorer.score(of_training(split), np.arange(split.n_items)))
    np.testing.assert_array_equal(scores[0], scores[1])
    assert np.abs(scores[0] - scores[2]).max() > 1e-3


# --- agreement with RecBole's own evaluation ----------------------------------------------------------------------------

OWN_EVALUATION = """
import json, logging, sys
from recsys.models._recbole_worker import _patch
_patch()
settings, out = json.loads(sys.argv[1]), sys.argv[2]
sys.argv = sys.argv[:1]
logging.disable(logging.INFO)
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer
config = Config(model="EASE", dataset="ml-100k", config_dict=settings)
train, valid, test = data_preparation(config, create_dataset(config))
model = get_model("EASE")(config, train.dataset)
trainer = get_trainer(config["MODEL_TYPE"], "EASE")(config, model)
metrics = trainer.evaluate(test, load_best_model=False)
tokens = train.dataset.field2id_token
parts = {
    name: [tokens[field][part.dataset.inter_feat[field].numpy()].tolist() for field in ("user_id", "item_id")]
    for name, part in (("train", train), ("valid", valid), ("test", test))
}
open(out, "w").write(json.dumps({"metrics": {k: float(v) for k, v in metrics.items()}, **parts}))
"""


@pytest.mark.slow
@pytest.mark.realdata
def test_our_ease_equals_recboles_in_every_metric(tmp_path: Path) -> None:
    """RecBole splits ml-100k, fits its EASE and evaluates it by itself; ours is fitted on that split and evaluated by us."""
    metrics = ["Recall", "NDCG", "MRR", "Hit", "Precision", "MAP"]
    settings = {
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "reg_weight": 250.0,
        "metrics": metrics,
        "topk": [10],
        "metric_decimal_place": 12,
        "valid_metric": "NDCG@10",
        "use_gpu": False,
        "show_progress": False,
        "checkpoint_dir": str(tmp_path),
    }
    out = tmp_path / "out.json"
    root = str(Path(_recbole_worker.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", OWN_EVALUATION, json.dumps(settings), str(out)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(out.read_text())
    split = split_of(theirs)
    ours = evaluate(Ease.fit(EaseConfig(regularisation=250.0), split), split.test, ks=(10,))
    assert len(split.test) == 943
    assert theirs["metrics"]["recall@10"] > 0.05
    for metric in metrics:
        assert ours.mean(f"{metric.lower()}@10") == pytest.approx(theirs["metrics"][f"{metric.lower()}@10"], abs=1e-4), metric


def split_of(theirs: dict[str, list[list[str]]]) -> Split:
    """RecBole's split as ours. Its EASE reads the training rows alone; its evaluator masks training and validation."""
    users, items = (Vocabulary(dict.fromkeys(value for part in ("train", "valid", "test") for value in theirs[part][column])) for column in (0, 1))
    rows: dict[str, list[list[int]]] = {part: [[] for _ in users.ids] for part in ("train", "valid", "test")}
    for part, lists in rows.items():
        for user_num, item_num in zip(users.nums(theirs[part][0]).tolist(), items.nums(theirs[part][1]).tolist(), strict=True):
            lists[user_num].append(item_num)
    arrays = {part: [np.array(row, dtype=np.int64) for row in lists] for part, lists in rows.items()}
    train = Sequences.of_rows(arrays["train"])
    tested = [user for user, row in enumerate(arrays["test"]) if len(row)]
    test = Cases.of_rows([(u, arrays["train"][u], np.concatenate([arrays["train"][u], arrays["valid"][u]]), int(arrays["test"][u][0])) for u in tested])
    nothing = Cases.of_rows([])
    return Split("leave_last_out", users, items, train, nothing, test, nothing, np.zeros(len(items), dtype=np.bool_), "recbole")
