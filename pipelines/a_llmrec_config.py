"""What stands on the board of A-LLMRec: `a_llmrec.yaml` of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from pipelines.board_config import BoardConfig, expanded
from pipelines.signal_config import Signal
from recsys.alignment.config import MatchingConfig, ProjectionConfig
from recsys.alignment.language import LanguageConfig
from recsys.config import Config, apply_overrides, read_yaml
from recsys.data.split import SplitConfig
from recsys.errors import ConfigError

_SHARED = {"backbone", "backbone_seed", "texts", "text", "train_users", "test_users", "validation_users", "negatives"}
_NAMES = {"label", "seeds", "ranked"}
"""Of a model: what a run of it does not depend on."""


class AlignmentModel(Config):
    label: str
    split: SplitConfig | None = None
    """Null: the board's; one that holds items out has cold cases too."""
    few_users: Annotated[int, Field(ge=2)] | None = None
    """The recommender and both stages train on so many users alone; null: the recommender and stage 1 on all, stage 2 on those of the list."""
    stage2_users: Annotated[int, Field(ge=2)] | None = None
    """Stage 2 trains on so many of the list; null: on all of it. For the costly ones."""
    matching: MatchingConfig = MatchingConfig()
    projection: ProjectionConfig = ProjectionConfig()
    seeds: Annotated[int, Field(ge=1)] = 1
    """Runs with seeds 0 to this number less one."""
    ranked: bool = True
    """false: it is trained for language alone and not measured."""


class AlignmentFile(Config):
    dataset: str
    backbone: str = "sasrec"
    """The frozen recommender: a model of the board, with its settings there."""
    backbone_seed: int = 0
    texts: Signal
    """What is aligned with it: vectors of the items' texts."""
    text: str = "{title}"
    """What the language model is told of an item."""
    train_users: Annotated[int, Field(ge=1)] = 2000
    """Of the list that stage 2 trains on."""
    test_users: Annotated[int, Field(ge=1)] = 1000
    """Of the list that all are measured on, of each kind of cases."""
    validation_users: Annotated[int, Field(ge=1)] = 300
    negatives: Annotated[int, Field(ge=1)] = 19
    parts: dict[str, Any] = Field(default_factory=dict)
    """For the anchors of YAML."""
    models: dict[str, AlignmentModel]
    language: LanguageConfig = LanguageConfig()
    explained: str | None = None
    """The model that explains; it needs all layers."""
    explained_users: Annotated[int, Field(ge=1)] = 10

    @classmethod
    def of_file(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Raises ConfigError."""
        return cls.parse(expanded(apply_overrides(read_yaml(path), list(overrides)), str(path)), source=str(path))

    def model(self, name: str) -> AlignmentModel:
        if name not in self.models:
            raise ConfigError(f"no model {name!r} of {self.dataset}; there are: {', '.join(self.models)}")
        return self.models[name]

    def board(self, name: str) -> BoardConfig:
        """That of the data set, on the model's split."""
        board = BoardConfig.of_dataset(self.dataset)
        split = self.model(name).split
        board.model(self.backbone)
        return board if split is None else board.model_copy(update={"split": split})

    def settings(self, name: str) -> dict[str, Any]:
        """What a run of the model depends on, beside the board."""
        return {**self.model_dump(mode="json", include=_SHARED), **self.model(name).model_dump(mode="json", exclude=_NAMES)}

    def is_of(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Whether a run with `settings` is one of the model as it stands here; a field that was added since, at its default, is no change."""
        plain = {"label": ""}
        theirs = AlignmentModel.model_validate(plain | {key: value for key, value in settings.items() if key not in _SHARED})
        mine = AlignmentModel.model_validate(plain | self.model(name).model_dump(mode="json", exclude=_NAMES))
        return theirs == mine and all(settings.get(key) == value for key, value in self.model_dump(mode="json", include=_SHARED).items())
