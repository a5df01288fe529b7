"""Bodies of the HTTP service: personal requests and their answers, and what all bodies share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_CANDIDATES, MAX_HISTORY, MAX_K, MAX_BATCH, MAX_ID = 10_000, 1_000, 1_000, 256, 512

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
Ids = Annotated[list[Id], Field(max_length=MAX_HISTORY)]
History = Annotated[list[Id], Field(max_length=MAX_HISTORY, description="item_ids, oldest first: for someone the model never saw")]
Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]], Field(max_length=100)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PersonalRequest(Body):
    user_id: Id | None = None
    history: History | None = None
    timing: Annotated[bool, Field(description="Say how long each step took")] = False

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.user_id is None) == (self.history is None):
            raise ValueError("give either user_id or history")
        return self


class ScoreRequest(PersonalRequest):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"user_id": "196", "candidates": ["50", "181", "no-such-item"]}, {"history": ["50", "172"], "candidates": ["181"]}]},
    )

    candidates: Annotated[list[Id], Field(min_length=1, max_length=MAX_CANDIDATES)]


class CategoryFilter(Body):
    """allow: only items in one of these; null: any. deny: no item in one of these; stronger than allow."""

    allow: Names | None = None
    deny: Names | None = None


class RecommendRequest(PersonalRequest):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"user_id": "196", "k": 10},
                {"history": ["50", "172"], "k": 5, "exclude_seen": False, "categories": {"deny": ["Horror"]}, "explain": True},
            ]
        },
    )

    k: Annotated[int, Field(ge=1, le=MAX_K)] = 10
    exclude_seen: bool = True
    exclude: Annotated[Ids, Field(description="item_ids that must not be shown; unknown ones do no harm")] = []
    categories: CategoryFilter | None = None
    explain: Annotated[bool, Field(description="Give for each item the nearest items of the history, and the stored reason")] = False


class ScoreBatchRequest(Body):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"requests": [{"user_id": "196", "candidates": ["50"]}, {"history": ["50"], "candidates": ["181", "172"]}]}]},
    )

    requests: Annotated[list[ScoreRequest], Field(min_length=1, max_length=MAX_BATCH)]


class RecommendBatchRequest(Body):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"requests": [{"user_id": "196", "k": 3}, {"history": ["50"]}]}]})

    requests: Annotated[list[RecommendRequest], Field(min_length=1, max_length=MAX_BATCH)]


class ModelName(BaseModel):
    name: str
    version: str


class HistoryUse(BaseModel):
    """used: events that the model read. ignored: item_ids of the history that the model does not know."""

    used: int
    ignored: list[str]


class Answer(BaseModel):
    model: ModelName
    spaces: dict[str, str]


class PersonalPart(BaseModel):
    """features: where the history came from; "snapshot": of publishing time, "memory": the same and events since, "none": it could not be had.

    step: what made the scores. "fused": the model. "cached_vector": the model, with the user's last vector. "popularity": interactions at
    publishing time. Scores of popularity and of the model are not of one scale. degraded: why the step is not "fused".
    """

    features: Literal["online", "memory", "snapshot", "request", "none"]
    history: HistoryUse
    step: Literal["fused", "cached_vector", "popularity"]
    degraded: Literal["feature store", "deadline", "model"] | None = None


class _Timed(BaseModel):
    timing_ms: dict[str, float] | None = None


class ItemScore(BaseModel):
    item_id: str
    score: float | None
    reason: Literal["unknown item", "not scorable"] | None


class ScorePart(PersonalPart):
    scores: list[ItemScore]


class ScoreAnswer(Answer, ScorePart, _Timed):
    pass


class NearItem(BaseModel):
    """likeness: cosine of the fused vectors."""

    item_id: str
    title: str
    likeness: float


class RecommendedItem(BaseModel):
    """shares: what each signal adds to the score; none for popularity. because: the nearest items of the history. reason: what a language
    model wrote of the item; null where it wrote nothing."""

    item_id: str
    title: str
    score: float
    rank: int
    shares: dict[str, float]
    because: list[NearItem] | None = None
    reason: str | None = None


class RecommendPart(PersonalPart):
    items: list[RecommendedItem]
    explored: bool = False


class RecommendAnswer(Answer, RecommendPart, _Timed):
    pass


class Failed(BaseModel):
    """One request of a batch that has no answer; the others do."""

    status: int
    detail: str


class ScoreBatchAnswer(Answer):
    answers: list[ScorePart | Failed]


class RecommendBatchAnswer(Answer):
    answers: list[RecommendPart | Failed]


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`; every route may also answer 401, 429 and 503."""
    told = {400: "Not readable", 401: "Token missing or wrong", 404: "Unknown user or item", 409: "Held already", 413: "Body too large", 422: "Invalid request"}
    told |= {429: "Too many requests", 503: "Busy, or a part fails; try again", 507: "No room"}
    schema = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    return {status: {"description": told[status], "content": schema} for status in sorted({*statuses, 401, 429, 503})}
