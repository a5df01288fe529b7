"""Bodies about items, events and the model."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator

from recsys.serving.schemas import MAX_ID, Answer, Body, Id

MAX_EVENTS, MAX_NEW_ITEMS, MAX_FIELD, MAX_FIELDS = 1_000, 100, 20_000, 32
_LAST_YEAR_9999 = 253_402_300_799

Text = Annotated[str, Field(max_length=MAX_FIELD)]


class NewEvent(Body):
    user_id: Id
    item_id: Id
    time: Annotated[float, Field(ge=0, le=_LAST_YEAR_9999, allow_inf_nan=False, description="Unix seconds, UTC; without it, now")] | None = None


class EventsRequest(Body):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"events": [{"user_id": "196", "item_id": "50"}]}]})

    events: Annotated[list[NewEvent], Field(min_length=1, max_length=MAX_EVENTS, description="In the order in which they happened")]


class EventsAnswer(Answer):
    """unknown_items: item_ids that the model does not know (yet): they are kept, and ignored when scoring."""

    accepted: int
    unknown_items: list[str]


class ItemsRequest(Body):
    """Each item is `item_id` and columns of the catalogue: strings, or lists of strings (`categories`)."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"items": [{"item_id": "new-1", "title": "Alien Harvest", "categories": ["Sci-Fi", "Horror"]}]}]}
    )

    items: Annotated[
        list[Annotated[dict[Annotated[str, Field(max_length=64)], Text | Annotated[list[Text], Field(max_length=100)] | None], Field(max_length=MAX_FIELDS)]],
        Field(min_length=1, max_length=MAX_NEW_ITEMS),
    ]

    @model_validator(mode="after")
    def _short_ids(self) -> Self:
        for item in self.items:
            item_id = item.get("item_id")
            if isinstance(item_id, str) and len(item_id) > MAX_ID:
                raise ValueError(f"an item_id has at most {MAX_ID} characters, got {len(item_id)}")
        return self


class ItemsAnswer(Answer):
    """added: item_ids that are scorable from now on. held: those that were taken in before, with the same fields."""

    added: list[str]
    held: list[str]


class FoundItem(Body):
    item_id: str
    title: str
    categories: list[str]
    new: bool


class FoundItems(Answer):
    items: list[FoundItem]


class UserHistory(Answer):
    """items: oldest first, at most the last 200; those that the model does not know are left out."""

    user_id: str
    items: list[FoundItem]


class SimilarItem(Body):
    item_id: str
    title: str
    score: float
    rank: int


class SimilarAnswer(Answer):
    item_id: str
    items: list[SimilarItem]


class Users(Answer):
    user_ids: list[str]


class About(Answer):
    """columns: those that a new item may have. new_items: held in the overlay and scorable."""

    items: int
    users: int
    new_items: int
    signals: list[str]
    categories: list[str]
    columns: list[str]
    takes_events: bool
    takes_items: bool
    previous_version: str | None
    facts: dict[str, Any]
