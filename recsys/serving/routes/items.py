"""Items: like this one, found by title, new."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from recsys.serving.browse import found_items
from recsys.serving.item_schemas import FoundItems, ItemsAnswer, ItemsRequest, SimilarAnswer
from recsys.serving.overlay import item_fields
from recsys.serving.schemas import MAX_K, problems
from recsys.serving.scoring import Call
from recsys.serving.service import WRITE_SECONDS, Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["items"])

    # `:path`: an id may hold slashes.
    @routes.get("/v1/similar/{item_id:path}", response_model=SimilarAnswer, responses=problems(404, 422), summary="Items like this one")
    async def similar(
        http: Request, item_id: Annotated[str, Path(min_length=1, max_length=512, examples=["50"])], k: Annotated[int, Query(ge=1, le=MAX_K)] = 10
    ) -> Response:
        """Nearest by cosine of the model's item vectors."""

        def find(_: Call) -> dict[str, Any]:
            model = service.live.pinned()
            return {**service.scoring.head(model), "item_id": item_id, "items": model.similar(item_id, k).to_dicts()}

        return await service.answer(http, find)

    @routes.get("/v1/items", response_model=FoundItems, responses=problems(422), summary="Find items by title")
    async def search(http: Request, query: Annotated[str, Query(max_length=200)] = "", limit: Annotated[int, Query(ge=1, le=100)] = 20) -> Response:
        """The most popular items whose title holds the query."""

        def find(_: Call) -> dict[str, Any]:
            model = service.live.pinned()
            return {**service.scoring.head(model), "items": found_items(model, query, limit)}

        return await service.answer(http, find)

    @routes.post("/v1/items", response_model=ItemsAnswer, responses=problems(400, 413, 422), summary="Take in new items by their text")
    async def add(request: ItemsRequest, http: Request) -> Response:
        """All or none. They are stored first, and scorable when the answer comes; restarts and new models keep them. The first call waits until
        the encoder is loaded. To send an item again does no harm."""

        def take(_: Call) -> dict[str, Any]:
            added, held = service.overlay.add([item_fields(item) for item in request.items])
            return {**service.scoring.head(service.live.pinned()), "added": added, "held": held}

        return await service.answer(http, take, lane=service.writes, seconds=WRITE_SECONDS)

    return routes
