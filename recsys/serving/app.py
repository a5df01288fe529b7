"""The HTTP service: a thin shell around `Recommender`, which makes every score."""

from __future__ import annotations

import ipaddress
import logging
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from recsys.errors import ConfigError, RetryableError, UnknownIdError
from recsys.serving import problems
from recsys.serving.features import OnlineFeatures
from recsys.serving.middleware import BodyLimitMiddleware, Metrics, MetricsMiddleware
from recsys.serving.problems import AsciiJSONResponse
from recsys.serving.recommender import Recommender
from recsys.serving.schemas import MAX_K, Problem, RecommendAnswer, RecommendRequest, ScoreAnswer, ScoreRequest, SimilarAnswer

BODY_LIMIT = 2_000_000
PROBE_USER = "readiness-probe"
_log = logging.getLogger(__name__)
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {problems.MEDIA_TYPE: {"schema": Problem.model_json_schema()}}}
    for status, text in {404: "Unknown user or item", 413: "Body too large", 422: "Invalid request", 503: "Feature store fails; try again"}.items()
}


def create_app(recommender: Recommender, features: OnlineFeatures | None = None, *, body_limit: int = BODY_LIMIT) -> FastAPI:
    """features: user histories; None means those of the bundle, and each answer then says "snapshot"."""
    app = FastAPI(
        title="recsys scorer",
        version=recommender.version,
        description=f"Model {recommender.name} {recommender.version}. Every answer names the model and its embedding spaces.",
    )
    metrics = Metrics()
    metrics.model.labels(recommender.name, recommender.version).set(1)
    app.add_middleware(BodyLimitMiddleware, limit=body_limit)
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    problems.install(app)
    # The first call loads lazy parts; no client should pay for it.
    _probe_model(recommender)

    def head() -> dict[str, Any]:
        return {"model": {"name": recommender.name, "version": recommender.version}, "spaces": recommender.spaces}

    def history_of(user_id: str | None, given: list[str] | None) -> tuple[list[str], dict[str, Any]]:
        """The known part of the history, and what the answer says of it."""
        source, events = ("request", given) if given is not None else ("snapshot", None)
        if events is None and user_id is not None:
            if features is None:
                events = recommender.user_history(user_id)
            else:
                source, events = "online", _online_history(features, user_id)
        assert events is not None
        ignored = recommender.unknown_items(events)
        unknown = set(ignored)
        used = [item for item in events if item not in unknown]
        if ignored:
            metrics.ignored.inc(len(ignored))
        return used, {"features": source, "history": {"used": len(used), "ignored": ignored}}

    @app.post("/v1/score", response_model=ScoreAnswer, responses=_PROBLEMS, summary="Score candidates")
    def score(request: ScoreRequest) -> Response:
        """A score for each candidate, or null and the reason."""
        history, said = history_of(request.user_id, request.history)
        frame = recommender.score(request.user_id, request.candidates, history=history)
        for reason, n in frame["reason"].drop_nulls().value_counts().iter_rows():
            metrics.unscored.labels(reason).inc(n)
        return AsciiJSONResponse({**head(), **said, "scores": frame.to_dicts()})

    @app.post("/v1/recommend", response_model=RecommendAnswer, responses=_PROBLEMS, summary="The best items of the whole catalogue")
    def recommend(request: RecommendRequest) -> Response:
        """The k best items, with the share of each signal in the score."""
        history, said = history_of(request.user_id, request.history)
        users = None if request.user_id is None else [request.user_id]
        answer = recommender.recommend(users, history=history, k=request.k, exclude_seen=request.exclude_seen)
        items = [
            {
                "item_id": row["item_id"],
                "title": answer.titles[row["item_id"]],
                "score": row["score"],
                "rank": row["rank"],
                "shares": {name.removeprefix("share_"): value for name, value in row.items() if name.startswith("share_")},
            }
            for row in answer.frame.iter_rows(named=True)
        ]
        return AsciiJSONResponse({**head(), **said, "items": items})

    # `:path`: an id may hold slashes.
    @app.get("/v1/similar/{item_id:path}", response_model=SimilarAnswer, responses=_PROBLEMS, summary="Items like this one")
    def similar(item_id: Annotated[str, Path(min_length=1, max_length=512, examples=["50"])], k: Annotated[int, Query(ge=1, le=MAX_K)] = 10) -> Response:
        """Nearest by cosine of the model's item vectors."""
        return AsciiJSONResponse({**head(), "item_id": item_id, "items": recommender.similar(item_id, k).to_dicts()})

    @app.get("/healthz", summary="The process answers")
    def healthz() -> Response:
        return AsciiJSONResponse({"status": "ok", **head()})

    @app.get("/readyz", responses={503: _PROBLEMS[503]}, summary="The model scores and the feature store answers")
    def readyz() -> Response:
        _probe_model(recommender)
        if features is not None:
            _ask(features, PROBE_USER)
        return AsciiJSONResponse({"status": "ready", "features": "snapshot" if features is None else "online", **head()})

    @app.get("/metrics", summary="Prometheus metrics")
    def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return app


def serve(
    recommender: Recommender,
    features: OnlineFeatures | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    allow_remote: bool = False,
    log_level: str = "info",
) -> None:
    """Serve in this process until interrupted.

    Raises:
        ConfigError: a host that other machines reach, without `allow_remote`.
    """
    import uvicorn

    require_local(host, allow_remote)
    uvicorn.run(create_app(recommender, features), host=host, port=port, log_level=log_level, access_log=False)


def require_local(host: str, allow_remote: bool) -> None:
    """The service has no authentication: being reachable from other machines is a decision, not a default."""
    if allow_remote or host == "localhost":
        return
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ConfigError(f"host {host!r} is not loopback and the service has no authentication; put it behind a proxy, or pass allow_remote (--allow-remote)")


def _probe_model(recommender: Recommender) -> None:
    recommender.score(history=[], items=list(recommender.catalog.items.ids[:1]))


def _online_history(features: OnlineFeatures, user_id: str) -> list[str]:
    events = _ask(features, user_id)
    if events is None:
        error = UnknownIdError("user_id", [user_id], 0)
        error.args = (f"unknown user_id: {user_id!r}; the feature store does not hold it; for someone never seen send history",)
        raise error
    return events


def _ask(features: OnlineFeatures, user_id: str) -> list[str] | None:
    try:
        return features.history(user_id)
    except Exception as error:
        # Whatever a store raises: the client can only come back later. A score without the history would be made up.
        _log.exception("the feature store failed")
        raise RetryableError("the feature store does not answer; try again, or send history instead of user_id") from error
