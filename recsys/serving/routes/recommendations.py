"""The best items of the whole catalogue."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from recsys.serving.schemas import RecommendAnswer, RecommendBatchAnswer, RecommendBatchRequest, RecommendRequest, problems
from recsys.serving.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["recommendations"])

    @routes.post("/v1/recommend", response_model=RecommendAnswer, responses=problems(400, 404, 413, 422), summary="The best items of the whole catalogue")
    async def recommend(request: RecommendRequest, http: Request) -> Response:
        """The k best items, with the share of each signal in the score."""
        response = await service.answer(http, lambda call: service.scoring.recommend(request, call))
        service.note_user(http, request.user_id)
        return response

    @routes.post("/v1/recommend/batch", response_model=RecommendBatchAnswer, responses=problems(400, 413, 422), summary="The best items for each of many users")
    async def recommend_batch(request: RecommendBatchRequest, http: Request) -> Response:
        """One answer for each request, all of the same model version; a user that nobody knows fails alone."""
        return await service.answer(http, lambda call: service.scoring.recommend_batch(request, call))

    return routes
