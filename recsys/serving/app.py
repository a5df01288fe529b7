"""The HTTP application: middleware and routes around a `Service`, which makes every answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from recsys.serving import problems
from recsys.serving.assembly import assemble
from recsys.serving.config import ServiceConfig
from recsys.serving.features import OnlineFeatures
from recsys.serving.middleware import BodyLimitMiddleware, GuardMiddleware, ObservedMiddleware
from recsys.serving.rate import Rates
from recsys.serving.recommender import Recommender
from recsys.serving.routes import events, items, model, page, recommendations, scores, users
from recsys.serving.service import Service


def create_app(
    recommender: Recommender, features: OnlineFeatures | None = None, *, config: ServiceConfig | None = None, body_limit: int | None = None
) -> FastAPI:
    """One model that stays, new items in memory alone: for tests, notebooks and the parity proof. A service has more parts: see `assemble`.

    features: user histories; None means those of the bundle, and each answer then says "snapshot".
    """
    config = config or ServiceConfig()
    if body_limit is not None:
        config = config.model_copy(update={"limits": config.limits.model_copy(update={"body_bytes": body_limit})})
    return app_of(assemble(recommender, features, config))


def app_of(service: Service) -> FastAPI:
    """Starts and closes the parts of `service` with the server that runs the app."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    name = service.live.current.name
    app = FastAPI(
        title="recsys scorer",
        version="1",
        description=f"Answers of the model {name}. Every answer names the model version, its embedding spaces and the step that made it.",
        lifespan=lifespan,
    )
    config, metrics = service.config, service.metrics
    limits = config.limits
    rates = None if limits.requests_per_second is None else Rates(limits.requests_per_second)
    # The last added is the outermost.
    app.add_middleware(BodyLimitMiddleware, limit=limits.body_bytes, nesting=limits.nesting)
    app.add_middleware(GuardMiddleware, hosts=config.hosts, token=config.token, rates=rates, rejected=lambda reason: metrics.rejected.labels(reason).inc())
    app.add_middleware(ObservedMiddleware, metrics=metrics)
    problems.install(app)
    for routes in (scores, recommendations, items, events, users, model):
        app.include_router(routes.router(service))
    app.include_router(page.router())
    return app
