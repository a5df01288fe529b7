"""Rates, breaker, nesting, lane, cached vectors, exploration, golden requests: each by hand."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ArtifactError, RetryableError
from recsys.serving.breaker import Breaker
from recsys.serving.exploration import explored, propensities
from recsys.serving.features import Event, OnlineFeatures, TakesEvents
from recsys.serving.golden import Golden, golden_requests
from recsys.serving.lane import BusyError, Lane
from recsys.serving.memory_features import MemoryFeatures
from recsys.serving.nesting import deeper_than
from recsys.serving.problems import rendered
from recsys.serving.rate import Rates
from recsys.serving.user_states import UserState, UserStates
from tests.serving import making


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills() -> None:
    clock = Clock()
    rates = Rates(2.0, clock=clock)
    assert [rates.wait("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    assert rates.wait("b") == 0.0
    clock.now += 0.5
    assert [rates.wait("a") for _ in range(2)] == [0.0, 0.5]
    clock.now += 1000
    assert [rates.wait("a") for _ in range(3)] == [0.0, 0.0, 0.5]  # never more than one second's requests


def test_slow_rates_still_let_one_through() -> None:
    clock = Clock()
    rates = Rates(0.1, clock=clock)
    assert rates.wait("a") == 0.0
    assert rates.wait("a") == pytest.approx(10.0)
    clock.now += 10
    assert rates.wait("a") == 0.0


def test_a_store_that_fails_is_left_alone_and_tried_again() -> None:
    clock, asked = Clock(), []
    breaker = Breaker(failures=2, seconds=1.0, clock=clock)

    def fail() -> None:
        asked.append(clock.now)
        raise OSError("down")

    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            breaker.call(fail)
    with pytest.raises(RetryableError, match="left alone"):
        breaker.call(fail)
    assert len(asked) == 2
    clock.now += 1.0
    with pytest.raises(OSError, match="down"):
        breaker.call(fail)
    with pytest.raises(RetryableError):
        breaker.call(fail)
    clock.now += 1.0
    assert breaker.call(lambda: "up") == "up"
    assert breaker.call(lambda: "up") == "up"
    with pytest.raises(OSError, match="down"):
        breaker.call(fail)  # one failure alone opens nothing
    assert breaker.call(lambda: "up") == "up"


def test_depth_is_told_without_parsing() -> None:
    assert not deeper_than(b"[[[]]]", 3)
    assert deeper_than(b"[[[[]]]]", 3)
    assert deeper_than(b"[" * 1_000_000, 16)
    assert not deeper_than(json.dumps({"text": "[" * 100 + '\\"' + "{" * 100}).encode(), 3)
    assert not deeper_than(b"[]" * 100, 3)


@given(st.recursive(st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=20))
def test_depth_equals_that_of_the_parsed_value(value: object) -> None:
    def depth(node: object) -> int:
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    body = json.dumps(value).encode()
    for limit in range(6):
        assert deeper_than(body, limit) == (depth(value) > limit)


def test_a_full_queue_and_a_deadline_turn_requests_away() -> None:
    lane, release, begun = Lane(workers=1, queue=1), threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        release.wait(10)
        return "done"

    async def scene() -> list[object]:
        far = time.perf_counter() + 60
        first = asyncio.ensure_future(lane.run(slow, deadline=far))
        await asyncio.get_running_loop().run_in_executor(None, begun.wait, 10)
        late = asyncio.ensure_future(lane.run(lambda: "too late", deadline=time.perf_counter()))
        await asyncio.sleep(0.01)
        with pytest.raises(BusyError) as full:
            await lane.run(lambda: "no room", deadline=far)
        assert full.value.reason == "queue_full" and lane.pending == 2
        release.set()
        answers = await asyncio.gather(first, late, return_exceptions=True)
        return [*answers, await lane.run(lambda: "room again", deadline=far)]

    first, late, again = asyncio.run(scene())
    assert (first, again) == ("done", "room again")
    assert isinstance(late, BusyError) and late.reason == "deadline"
    assert lane.pending == 0
    lane.close()


def test_without_threads_jobs_run_in_the_loop_and_all_that_has_arrived_counts() -> None:
    lane, ran_by = Lane(workers=0, queue=2), []

    async def scene() -> list[object]:
        far = time.perf_counter() + 60
        jobs = [lane.run(lambda: ran_by.append(threading.get_ident()), deadline=far) for _ in range(3)]
        # Arrived in the same instant: one runs, two wait, and for two there is no room.
        jobs += [lane.run(lambda: "no room", deadline=far) for _ in range(2)]
        answers = await asyncio.gather(*jobs, return_exceptions=True)
        cancelled = asyncio.ensure_future(lane.run(lambda: ran_by.append(0), deadline=far))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        with pytest.raises(BusyError) as late:
            await lane.run(lambda: "too late", deadline=time.perf_counter())
        return [*answers, late.value.reason]

    *answers, reason = asyncio.run(scene())
    assert answers[:3] == [None] * 3
    assert all(isinstance(answer, BusyError) and answer.reason == "queue_full" for answer in answers[3:])
    assert reason == "deadline"
    assert ran_by == [threading.get_ident()] * 3
    assert lane.pending == 0
    lane.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_job_that_fails_gives_its_place_back(workers: int) -> None:
    lane = Lane(workers=workers, queue=1)

    def fail() -> None:
        raise ValueError("no")

    async def scene() -> None:
        for _ in range(5):
            with pytest.raises(ValueError, match="no"):
                await lane.run(fail, deadline=time.perf_counter() + 60)

    asyncio.run(scene())
    assert lane.pending == 0
    lane.close()


def test_vectors_are_found_by_space_and_history_and_forgotten_in_order() -> None:
    states = UserStates(limit=2)
    vector = np.ones((1, 2), dtype=np.float32)
    states.keep("s", "a", UserState(np.array([1, 2]), vector))
    assert states.of_history("s", "a", np.array([1, 2])) is not None
    assert states.of_history("s", "a", np.array([1, 2, 3])) is None
    assert states.last("s", "a") is not None
    assert states.last("other", "a") is None
    states.keep("s", "b", UserState(np.array([1]), vector))
    states.last("s", "a")
    states.keep("s", "c", UserState(np.array([1]), vector))
    assert [states.last("s", user) is not None for user in "abc"] == [True, False, True]


def test_memory_features_append_to_their_base() -> None:
    features = MemoryFeatures(lambda user: ["old"] if user == "known" else None)
    assert isinstance(features, TakesEvents)
    seam: OnlineFeatures = features
    assert (seam.history("known"), seam.history("new")) == (["old"], None)
    features.push([Event("known", "x", 1.0), Event("new", "y", 2.0), Event("known", "z", 3.0)])
    assert (seam.history("known"), seam.history("new")) == (["old", "x", "z"], ["y"])


def test_propensities_are_the_frequencies_of_what_is_drawn() -> None:
    m, k, share, draws = 6, 3, 0.4, 40_000
    random = np.random.default_rng(0)
    seen = np.zeros((m, k))
    for _ in range(draws):
        places = explored(m, k, random) if random.random() < share else np.arange(k)
        seen[places, np.arange(k)] += 1
    # The chance of item r at place p, asked one list at a time.
    stated = np.stack([propensities(np.full(k, r), m, share) for r in range(m)])
    np.testing.assert_allclose(seen / draws, stated, atol=0.01)
    np.testing.assert_allclose(stated.sum(axis=0), 1.0)
    assert propensities(np.arange(3), 6, 0.0).tolist() == [1.0, 1.0, 1.0]


def test_golden_requests_know_their_model_and_no_other(tmp_path: Path) -> None:
    ranker = making.ranker()
    golden = golden_requests(ranker, making.histories())
    assert golden[0].history == () and len(golden) == 9
    assert [Golden.of_json(json.loads(json.dumps(one.to_json()))) for one in golden] == golden
    for one in golden:
        one.check(ranker)
    with pytest.raises(ArtifactError, match="golden request of 39 candidates"):
        golden[1].check(making.ranker(seed=1))
    damaged = Golden(golden[1].history, golden[1].candidates, (float("nan"),) * len(golden[1].candidates))
    with pytest.raises(ArtifactError, match="golden request"):
        damaged.check(ranker)


def test_answers_are_json_whatever_they_hold() -> None:
    scores = np.random.default_rng(0).normal(size=200).astype(np.float32).tolist()
    content = {"scores": scores, "id": 'odd/<b>"&é 😀\u0000\u202e', "none": None, "yes": True, "n": 10**15}
    assert json.loads(rendered(content)) == content  # every float comes back as it was
    assert json.loads(rendered({"id": "\ud800"})) == {"id": "\ud800"}
    assert json.loads(rendered([float("nan"), float("inf")])) == [None, None]
