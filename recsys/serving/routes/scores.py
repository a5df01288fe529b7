"""Scores of candidates."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from recsys.serving.schemas import ScoreAnswer, ScoreBatchAnswer, ScoreBatchRequest, ScoreRequest, problems
from recsys.serving.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["scores"])

    @routes.post("/v1/score", response_model=ScoreAnswer, responses=problems(400, 404, 413, 422), summary="Score candidates")
    async def score(request: ScoreRequest, http: Request) -> Response:
        """A score for each candidate, or null and the reason."""
        response = await service.answer(http, lambda call: service.scoring.score(request, call))
        service.note_user(http, request.user_id)
        return response

    @routes.post("/v1/score/batch", response_model=ScoreBatchAnswer, responses=problems(400, 413, 422), summary="Score candidates of many users")
    async def score_batch(request: ScoreBatchRequest, http: Request) -> Response:
        """One answer for each request, all of the same model version; a user that nobody knows fails alone."""
        return await service.answer(http, lambda call: service.scoring.score_batch(request, call))

    return routes
