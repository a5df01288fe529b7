"""The scorer as a Ray Serve deployment: a thin adapter of `recsys.serving.scoring.Scoring`.

From the repository's root, with `grpcio-reflection` installed:

    RECSYS_BUNDLE=models:/recsys-ml100k@champion serve run infra.ray_serve:scorer

POST /v1/score and /v1/recommend take and give what the service of `recsys serve` does. It has no events, no new items and no swap: a new
version is a new deployment, which Ray Serve rolls out itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

BUNDLE_VARIABLE = "RECSYS_BUNDLE"


@serve.deployment(ray_actor_options={"num_cpus": 1}, max_ongoing_requests=64)
class Scorer:
    """bundle: what `recsys.load` takes."""

    def __init__(self, bundle: str, tracking_uri: str | None = None) -> None:
        import torch

        import recsys
        from recsys.serving.live import LiveModel
        from recsys.serving.schemas import RecommendRequest, ScoreRequest
        from recsys.serving.scoring import Scoring

        torch.set_num_threads(1)
        self._scoring = Scoring(LiveModel(recsys.load(bundle, tracking_uri=tracking_uri)))
        self._scoring.probe()
        self._routes: dict[str, tuple[type[Any], Callable[..., dict[str, Any]]]] = {
            "/v1/score": (ScoreRequest, self._scoring.score),
            "/v1/recommend": (RecommendRequest, self._scoring.recommend),
        }

    async def __call__(self, request: Request) -> Response:
        from pydantic import ValidationError

        from recsys.errors import DataError, RetryableError, UnknownIdError
        from recsys.serving.problems import problem, rendered

        route = self._routes.get(request.url.path)
        if route is None or request.method != "POST":
            return problem(404, f"POST one of {', '.join(self._routes)}")
        schema, answer = route
        try:
            return Response(rendered(answer(schema.model_validate_json(await request.body()), self._scoring.call())), media_type="application/json")
        except ValidationError as error:
            return problem(422, str(error)[:500])
        except UnknownIdError as error:
            return problem(404, str(error))
        except DataError as error:
            return problem(422, str(error))
        except RetryableError as error:
            return problem(503, str(error), headers={"Retry-After": "5"})


def application(bundle: str, tracking_uri: str | None = None) -> serve.Application:
    return Scorer.bind(bundle, tracking_uri)


if BUNDLE_VARIABLE in os.environ:
    scorer = application(os.environ[BUNDLE_VARIABLE], os.environ.get("RECSYS_TRACKING_URI"))
