"""Users that the model was published with, and what they did."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from recsys.serving.browse import found_users, shown_history
from recsys.serving.item_schemas import UserHistory, Users
from recsys.serving.schemas import problems
from recsys.serving.scoring import Call
from recsys.serving.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["users"])

    @routes.get("/v1/users", response_model=Users, responses=problems(422), summary="Find users")
    async def users(http: Request, prefix: Annotated[str, Query(max_length=512)] = "", limit: Annotated[int, Query(ge=1, le=100)] = 20) -> Response:
        """user_ids that begin with `prefix`."""

        def find(_: Call) -> dict[str, Any]:
            model = service.live.pinned()
            return {**service.scoring.head(model), "user_ids": found_users(model, prefix, limit)}

        return await service.answer(http, find)

    @routes.get("/v1/users/{user_id:path}/history", response_model=UserHistory, responses=problems(404, 422), summary="What a user did")
    async def history(http: Request, user_id: Annotated[str, Path(min_length=1, max_length=512)]) -> Response:
        """The latest events, oldest first."""

        def find(_: Call) -> dict[str, Any]:
            model = service.live.pinned()
            events = service.scoring.people.history(model, user_id)[1]
            return {**service.scoring.head(model), "user_id": user_id, "items": shown_history(model, events)}

        return await service.answer(http, find)

    return routes
