"""Killed at random moments, an embedding job ends in the same table; `python -m benchmarks chaos` does it twenty times."""

from pathlib import Path

import pytest

from benchmarks.chaos import Kill, Life, chaos, cluster, plan


def test_a_plan_has_so_many_kills_and_ends_in_peace() -> None:
    for count in (1, 3, 20):
        lives = plan(count, seed=count)
        assert sum(len(life.kills) for life in lives) == count and not lives[-1].kills
        assert all(life.kills[-1].victim == "driver" for life in lives[:-1])
        assert all(kill.victim == "driver" for life in lives if life.executor == "local" for kill in life.kills)
    assert plan(20, seed=1) == plan(20, seed=1) != plan(20, seed=2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_local_driver_is_killed(tmp_path: Path) -> None:
    found = chaos(tmp_path, plan(2, 0, ("local",), most=100), None, items=1_000, seconds=0.001)
    assert found["encoded_again_after_it_was_stored"] == 0 and found["drivers"] == 3 and found["quarantined"] == 30


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_driver_on_ray_and_its_actors_are_killed(tmp_path: Path) -> None:
    lives = [Life("ray", (Kill("actor", 50, 0.1), Kill("driver", 50, 0.05))), Life("ray")]
    with cluster() as address:
        found = chaos(tmp_path, lives, address, items=1_000, seconds=0.001)
    assert [event["victim"] for event in found["kills"]] == ["actor", "driver"] and found["lowest_cosine"] == 1.0
