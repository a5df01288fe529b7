"""Bodies of the HTTP service."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_CANDIDATES, MAX_HISTORY, MAX_K = 10_000, 1_000, 1_000

Id = Annotated[str, Field(min_length=1, max_length=512)]
History = Annotated[list[Id], Field(max_length=MAX_HISTORY, description="item_ids, oldest first: for someone the model never saw")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    user_id: Id | None = None
    history: History | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.user_id is None) == (self.history is None):
            raise ValueError("give either user_id or history")
        return self


class ScoreRequest(_Request):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"user_id": "196", "candidates": ["50", "181", "no-such-item"]}, {"history": ["50", "172"], "candidates": ["181"]}]},
    )

    candidates: Annotated[list[Id], Field(min_length=1, max_length=MAX_CANDIDATES)]


class RecommendRequest(_Request):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"user_id": "196", "k": 10}, {"history": ["50", "172"], "k": 5, "exclude_seen": False}]}
    )

    k: Annotated[int, Field(ge=1, le=MAX_K)] = 10
    exclude_seen: bool = True


class ModelName(BaseModel):
    name: str
    version: str


class HistoryUse(BaseModel):
    """used: events that the model read. ignored: item_ids of the history that the model does not know."""

    used: int
    ignored: list[str]


class _Answer(BaseModel):
    model: ModelName
    spaces: dict[str, str]


class _PersonalAnswer(_Answer):
    """features: where the history came from. "snapshot": the service has no feature store and used the history of
    publishing time."""

    features: Literal["online", "snapshot", "request"]
    history: HistoryUse


class ItemScore(BaseModel):
    item_id: str
    score: float | None
    reason: Literal["unknown item", "not scorable"] | None


class ScoreAnswer(_PersonalAnswer):
    scores: list[ItemScore]


class RecommendedItem(BaseModel):
    item_id: str
    title: str
    score: float
    rank: int
    shares: dict[str, float]


class RecommendAnswer(_PersonalAnswer):
    items: list[RecommendedItem]


class SimilarItem(BaseModel):
    item_id: str
    title: str
    score: float
    rank: int


class SimilarAnswer(_Answer):
    item_id: str
    items: list[SimilarItem]


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None
