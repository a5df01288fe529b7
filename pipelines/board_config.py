"""What stands on a board: one data set, one split, the models with their settings, and the trials that chose them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from pipelines.baselines import Baseline
from pipelines.board_folders import CONFIGS
from pipelines.cold_config import ColdConfig
from pipelines.ingest import IngestConfig
from pipelines.signal_config import Signal
from recsys.config import Config, apply_overrides, read_yaml
from recsys.data.split import SplitConfig
from recsys.embeddings.image_source import ImageSourceConfig
from recsys.embeddings.limits import LimitsConfig
from recsys.errors import ConfigError

FUSION = "fusion.yaml"


class FusionFile(Config):
    """`fusion.yaml`: what it adds to the board of its data set."""

    dataset: str
    signals: dict[str, Signal] = Field(default_factory=dict)
    """For the anchors of YAML: a model states its signals itself, so that its record does."""
    models: dict[str, Any]
    trials: dict[str, Any] = Field(default_factory=dict)
    studies: dict[str, Any] = Field(default_factory=dict)
    ladder: tuple[str, ...] = ()
    """Models of the board, lowest first: `ladder.md` sets each beside the one below it."""
    cold: ColdConfig | None = None
    """`recsys cold-board`: the models once more on splits that hold items out of training."""
    signal_data: dict[str, Any] | None = None
    """The source as signals read it, with columns or pictures that the board's own does without; null: as the board's."""
    limits: dict[str, Any] = Field(default_factory=dict)
    images: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of_dataset(cls, dataset: str, folder: Path = CONFIGS) -> Self | None:
        """None where there is no such file. Raises ConfigError."""
        path = folder / dataset / FUSION
        return cls.parse(read_yaml(path), source=str(path)) if path.is_file() else None


class BoardConfig(Config):
    dataset: str
    data: IngestConfig
    split: SplitConfig = SplitConfig()
    models: dict[str, Baseline]
    """Name on the board -> the model with its frozen settings."""
    trials: dict[str, tuple[tuple[str, ...], ...]] = Field(default_factory=dict)
    """Model -> its trials, each a tuple of overrides such as `settings.encoder.dropout=0.3`, judged on validation alone."""
    studies: dict[str, tuple[tuple[str, ...], ...]] = Field(default_factory=dict)
    """Likewise: what one change does, for readers. A study never chooses settings."""
    limits: LimitsConfig = LimitsConfig()
    """What no encoder of a signal is given."""
    signal_data: IngestConfig | None = None
    """The source as signals read it; null: `data`."""
    images: ImageSourceConfig = ImageSourceConfig()
    """Where the pictures of the items come from, for signals that look at them."""

    @model_validator(mode="after")
    def _trials_fit_their_models(self) -> Self:
        """A typing error in the last trial shows before the first one has run for an hour."""
        for planned in (self.trials, self.studies):
            for name, trials in planned.items():
                for overrides in trials:
                    self.trial(name, overrides)
        return self

    @classmethod
    def of_dataset(cls, dataset: str, folder: Path = CONFIGS) -> Self:
        """Reads `<folder>/<dataset>/baselines.yaml`, and beside it `fusion.yaml` where there is one, with the models that have
        signals; `$RECSYS_DATA` in paths stands for the folder of the data sets.

        Raises:
            ConfigError: no such file (lists those that exist), a model in both, or RECSYS_DATA is needed and not set.
        """
        path = folder / dataset / "baselines.yaml"
        if not path.is_file():
            known = sorted(p.parent.name for p in folder.glob("*/baselines.yaml"))
            raise ConfigError(f"{path}: no such file; boards exist for: {', '.join(known) or 'none'}")
        document = _merged(read_yaml(path), FusionFile.of_dataset(dataset, folder), folder / dataset / FUSION)
        board = cls.parse(expanded(document, str(path)), source=str(path))
        if board.dataset != dataset:
            raise ConfigError(f"{path}: dataset is {board.dataset!r}, expected the folder's name, {dataset!r}")
        return board

    def model(self, name: str) -> Baseline:
        if name not in self.models:
            raise ConfigError(f"no model {name!r} on the board of {self.dataset}; it has: {', '.join(self.models)}")
        return self.models[name]

    def trial(self, name: str, overrides: tuple[str, ...]) -> Baseline:
        """The model `name` with other settings."""
        changed = apply_overrides(self.model(name).model_dump(mode="json"), list(overrides))
        return type(self.model(name)).parse(changed, source=f"trial {' '.join(overrides)} of {name}")


def _merged(document: dict[str, Any], more: FusionFile | None, path: Path) -> dict[str, Any]:
    if more is None:
        return document
    if more.dataset != document.get("dataset"):
        raise ConfigError(f"{path}: dataset is {more.dataset!r}, expected {document.get('dataset')!r}")
    merged = dict(document)
    for part in ("models", "trials", "studies"):
        own, added = document.get(part, {}), getattr(more, part)
        if twice := sorted(own.keys() & added.keys()):
            raise ConfigError(f"{path}: {part} of {', '.join(twice)} stand in baselines.yaml already")
        merged[part] = {**own, **added}
    for part, names in (("ladder", more.ladder), ("cold", more.cold.models if more.cold else ())):
        if missing := [name for name in names if name not in merged["models"]]:
            raise ConfigError(f"{path}: {part}: no model {', '.join(missing)}; there are: {', '.join(merged['models'])}")
    return merged | {part: values for part in ("signal_data", "limits", "images") if (values := getattr(more, part))}


def expanded(value: Any, source: str) -> Any:
    """`$RECSYS_DATA` in any text of a parsed document replaced. Raises ConfigError: it is needed and not set."""
    if isinstance(value, dict):
        return {key: expanded(v, source) for key, v in value.items()}
    if isinstance(value, list):
        return [expanded(v, source) for v in value]
    if isinstance(value, str) and "$RECSYS_DATA" in value:
        root = os.environ.get("RECSYS_DATA")
        if not root:
            raise ConfigError(f"{source}: needs the environment variable RECSYS_DATA, the folder that holds the data sets")
        return re.sub(r"\$RECSYS_DATA\b", lambda _: root, value)
    return value
