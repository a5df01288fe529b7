"""The model that answers, probes and metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from recsys.errors import RetryableError
from recsys.serving.features import TakesEvents
from recsys.serving.item_schemas import About
from recsys.serving.problems import AsciiJSONResponse
from recsys.serving.schemas import problems
from recsys.serving.scoring import Call
from recsys.serving.service import Service

PROBE_USER = "readiness-probe"


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["model"])
    people = service.scoring.people

    @routes.get("/v1/model", response_model=About, responses=problems(), summary="What answers here")
    async def about(http: Request) -> Response:
        def tell(_: Call) -> dict[str, Any]:
            model, previous = service.live.pinned(), service.live.previous
            return {
                **service.scoring.head(model),
                "items": len(model.catalog),
                "users": len(model.user_ids),
                "new_items": model.state.added,
                "signals": ["id", *model.bundle.ranker.spaces],
                "categories": model.state.categories.names[:1000],
                "columns": model.catalog.table.columns,
                "takes_events": isinstance(people.features or people.memory, TakesEvents),
                "takes_items": bool(model.bundle.ranker.spaces) and set(model.bundle.encoders) >= set(model.bundle.ranker.spaces),
                "previous_version": None if previous is None else previous.version,
                "facts": dict(model.facts),
            }

        return await service.answer(http, tell)

    @routes.get("/healthz", summary="The process answers")
    async def healthz() -> Response:
        return AsciiJSONResponse({"status": "ok", **service.scoring.head(service.live.pinned())})

    @routes.get("/readyz", responses=problems(503), summary="The model scores and the feature store answers")
    def readyz() -> Response:
        """With `degrade` the service is ready without its feature store, and says so."""
        if service.draining.is_set():
            raise RetryableError("the service is about to stop")
        service.scoring.probe()
        features = "snapshot"
        if people.features is not None:
            features = "online"
            try:
                people.ask(PROBE_USER)
            except RetryableError:
                if not service.config.degrade:
                    raise
                features = "failing"
        return AsciiJSONResponse({"status": "ready", "features": features, **service.scoring.head(service.live.pinned())})

    @routes.get("/metrics", summary="Prometheus metrics")
    def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes
