"""Events as they happen."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from recsys.errors import DataError, RetryableError
from recsys.serving.features import Event, TakesEvents
from recsys.serving.item_schemas import EventsAnswer, EventsRequest
from recsys.serving.schemas import problems
from recsys.serving.scoring import Call
from recsys.serving.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["events"])

    @routes.post("/v1/events", response_model=EventsAnswer, responses=problems(400, 413, 422), summary="Tell what users did")
    async def events(request: EventsRequest, http: Request) -> Response:
        """The next answer for these users reads the events. After a 503 none may be taken for stored: send them again."""

        def take(_: Call) -> dict[str, Any]:
            features = service.scoring.people.features or service.scoring.people.memory
            if not isinstance(features, TakesEvents):
                raise DataError("the feature store of this service takes no events; write them where it reads from")
            now = time.time()
            happened = [Event(event.user_id, event.item_id, now if event.time is None else event.time) for event in request.events]
            try:
                features.push(happened)
            except DataError:
                raise
            except Exception as error:
                raise RetryableError("the feature store does not take events; send them again") from error
            service.metrics.events.inc(len(happened))
            model = service.live.pinned()
            unknown = model.unknown_items([event.item_id for event in happened])
            return {**service.scoring.head(model), "accepted": len(happened), "unknown_items": unknown}

        return await service.answer(http, take, lane=service.writes)

    return routes
