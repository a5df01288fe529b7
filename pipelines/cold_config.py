"""What stands on the cold board of a data set: `cold` of its `fusion.yaml`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from recsys.config import Config
from recsys.data.split import SplitConfig


class SlotsConfig(Config):
    """A list with reserved slots: the known items as one model ranks them, the new ones as another does."""

    label: str
    known: str
    new: str


class ColdConfig(Config):
    splits: dict[str, SplitConfig]
    """Name -> a split that holds items out of training."""
    models: tuple[str, ...]
    """Of the board, with the settings they have there."""
    nearest: str
    """The model that cold accuracy is compared with: nearest neighbours in the text that the others read."""
    warm: str
    """The model that warm accuracy is compared with: trained without a thought of cold items."""
    slots: dict[str, SlotsConfig] = Field(default_factory=dict)
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.1, 0.3)
    """Of a list that is reserved for items that training never saw."""

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        named = {self.nearest, self.warm, *(name for slots in self.slots.values() for name in (slots.known, slots.new))}
        if unknown := sorted(named - set(self.models)):
            raise ValueError(f"no model {', '.join(unknown)} among those of the cold board: {', '.join(self.models)}")
        if plain := [name for name, split in self.splits.items() if not split.protocol.startswith("held_out")]:
            raise ValueError(f"splits: {', '.join(plain)} holds no items out; use protocol held_out_items or held_out_targets")
        return self
