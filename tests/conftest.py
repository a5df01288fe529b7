"""Every test leaves the process as it found it, and none reaches for a network."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

# Before any library reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, settings

from recsys.data.catalog import ItemCatalog
from recsys.data.interactions import Interactions
from recsys.data.split import Split, SplitConfig, make_split

# A busy machine is slow now and then; that is no fault of the code under test.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))

STARTS_RAY = ("test_chaos.py", "test_embed_job.py", "test_ray_executor.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes the tests of a file go to one, for they share what its fixtures made; and one takes all clusters of Ray."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("ray" if item.path.name in STARTS_RAY else str(item.path)))


@pytest.fixture(autouse=True)
def _unchanged_process() -> Iterator[None]:
    """Put back what libraries keep globally: environment, working folder, torch and numpy state, warning filters."""
    environment = dict(os.environ)
    folder = os.getcwd()  # noqa: PTH109 (os.chdir needs no Path)
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    dtype = torch.get_default_dtype()
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()  # noqa: NPY002 (libraries use the global generator)
    with warnings.catch_warnings():
        yield
    if os.environ != environment:
        os.environ.clear()
        os.environ.update(environment)
    os.chdir(folder)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.set_default_dtype(dtype)
    torch.set_rng_state(torch_state)
    np.random.set_state(numpy_state)  # noqa: NPY002


@pytest.fixture
def tiny_catalog() -> ItemCatalog:
    """Twelve items `i0`..`i11` with title, year and categories; `i11` has no text."""
    return ItemCatalog(
        pl.DataFrame(
            {
                "item_id": [f"i{k}" for k in range(12)],
                "title": [f"Title {k}" for k in range(11)] + [None],
                "year": [str(1990 + k) for k in range(11)] + [None],
                "categories": [["Comedy"] if k % 2 else ["Drama", "Crime"] for k in range(11)] + [[]],
            }
        )
    )


@pytest.fixture
def tiny_interactions(tiny_catalog: ItemCatalog) -> Interactions:
    """Eight users `u0`..`u7`; user k meets items k, k+1, ..., k+5 (modulo eleven) at times 0..5. Nobody meets `i11`."""
    events = [(f"u{user}", f"i{(user + step) % 11}", step) for user in range(8) for step in range(6)]
    return Interactions.of_frame(pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row"), tiny_catalog.items)


@pytest.fixture
def tiny_split(tiny_interactions: Interactions) -> Split:
    """Leave-last-out: user k trains on k..k+3, validates on k+4, is tested on k+5."""
    return make_split(SplitConfig(), tiny_interactions)


@pytest.fixture
def tiny_cold_split(tiny_interactions: Interactions) -> Split:
    """The same with two of the eleven items held out."""
    return make_split(SplitConfig(protocol="held_out_items", held_out_share=0.15), tiny_interactions)
