"""Every operation of the OpenAPI schema, with data that fits it and data that does not: never a 5xx, always a problem that can be read."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings

from recsys.serving.app import create_app
from recsys.serving.config import ServiceConfig
from recsys.serving.recommender import Recommender
from tests.serving import making

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is in the extra dev")

EXAMPLES = int(os.environ.get("RECSYS_FUZZ_EXAMPLES", "15"))
OPERATIONS = 15


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    bundle = making.loaded(tmp_path_factory.mktemp("fuzz"))
    # A machine that stalls for a second must not look like a fault.
    app = create_app(Recommender(bundle, item_encoder=making.Hashed()), config=ServiceConfig(deadline_ms=300_000))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    found = [result.ok() for result in schema.get_all_operations()]
    assert len(found) >= 13, [operation.label for operation in found]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("number", range(OPERATIONS))
def test_no_operation_fails(operations: list[object], number: int, mode: str) -> None:
    if number >= len(operations):
        pytest.skip("the schema has fewer operations")
    operation = operations[number]
    if mode == "negative" and not (operation.body or operation.query or operation.path_parameters):  # type: ignore[attr-defined]
        pytest.skip(f"{operation.label} takes nothing that could be wrong")  # type: ignore[attr-defined]

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))  # type: ignore[attr-defined]
    def fuzz(case: object) -> None:
        response = case.call()  # type: ignore[attr-defined]
        assert response.status_code < 500, (operation.label, response.status_code, response.text[:500])  # type: ignore[attr-defined]
        if response.status_code >= 400 and response.status_code != 405:
            assert response.headers["content-type"][0].startswith("application/problem+json"), (response.status_code, response.text[:200])
            assert response.json()["detail"]

    fuzz()


def test_every_operation_is_fuzzed(operations: list[object]) -> None:
    assert len(operations) <= OPERATIONS
