"""What stands on a board of embeddings: `experiments/configs/<dataset>/embeddings.yaml`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipelines.adapter_config import AdapterConfig
from pipelines.board_config import BoardConfig, expanded
from pipelines.board_folders import CONFIGS
from pipelines.ingest import IngestConfig
from pipelines.item_tables import Made
from pipelines.joint_config import JointAdapterConfig
from recsys.config import Config, read_yaml
from recsys.data.split import SplitConfig
from recsys.embeddings.configs import EncoderConfig, parse_encoder
from recsys.embeddings.image_source import ImageSourceConfig
from recsys.embeddings.joint_training import ALONE, OWN
from recsys.embeddings.limits import LimitsConfig
from recsys.embeddings.post import PostConfig
from recsys.errors import ConfigError

FILE = "embeddings.yaml"
NONE = "none"
Picture = Literal["own", "absent", "swapped", "alone"]
"""See `recsys.embeddings.joint_training`."""


class MadeRow(Config):
    """Without weights."""

    kind: Literal["made"]
    label: str
    made: Made
    seeds: tuple[int, ...] = (0,)
    """In place of the seed of `made`."""
    posts: tuple[str, ...] = (NONE,)


class EncoderRow(Config):
    kind: Literal["encoder"]
    label: str
    encoder: EncoderConfig
    """`name` may be left out."""
    vary: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Option of the encoder -> its values: one row for each combination."""
    posts: tuple[str, ...] = (NONE,)
    """Names of `EmbeddingBoardConfig.posts`, and "none": one row for each."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("encoder"), dict):
            return {**values, "encoder": {"name": "row", **values["encoder"]}}
        return values


class TunedRow(Config):
    """An encoder fine-tuned on the split, once a seed."""

    kind: Literal["fine_tuned"]
    label: str
    adapter: AdapterConfig
    seeds: tuple[int, ...] = (0, 1, 2)
    """In place of the seed of `adapter`."""
    posts: tuple[str, ...] = (NONE,)


class JointRow(Config):
    """A joint encoder of pictures and texts trained on the split, once a seed."""

    kind: Literal["joint"]
    label: str
    adapter: JointAdapterConfig
    pictures: tuple[Picture, ...] = (OWN,)
    """What the vectors are made of, one row for each: with "absent" and "swapped" the board tells what the picture is worth to the model."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """In place of the seed of `adapter`."""
    posts: tuple[str, ...] = (NONE,)

    @model_validator(mode="after")
    def _pictures_fit(self) -> Self:
        if ALONE in self.pictures and not self.adapter.joint_training.encoder.two_embeddings:
            raise ValueError(f"pictures: {ALONE}: an encoder without two_embeddings has no word for the picture alone")
        return self


class ConcatRow(Config):
    """Vectors of other lines side by side."""

    kind: Literal["concat"]
    label: str
    parts: Annotated[tuple[str, ...], Field(min_length=2)]
    """Names of lines of encoders, or made ones, with their post-processing."""
    weights: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Of their unit vectors; none: 1 each."""

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if self.weights and len(self.weights) != len(self.parts):
            raise ValueError(f"{len(self.weights)} weights of {len(self.parts)} parts")
        return self


AnyRow = MadeRow | EncoderRow | TunedRow | JointRow | ConcatRow
Row = Annotated[AnyRow, Field(discriminator="kind")]


@dataclass(frozen=True)
class Entry:
    """One line of the board. source: row of the config.  encoder: of an `EncoderRow`, with this line's options.  picture: of a `JointRow`."""

    name: str
    label: str
    source: AnyRow
    post: PostConfig | None
    encoder: EncoderConfig | None = None
    picture: Picture = OWN

    @property
    def seeds(self) -> tuple[int, ...]:
        return (0,) if isinstance(self.source, EncoderRow | ConcatRow) else self.source.seeds

    @property
    def trained(self) -> bool:
        return isinstance(self.source, TunedRow | JointRow)


class QuestionConfig(Config):
    """Is the line called `line` better than each of `than`? Left out while one of them is not finished."""

    asks: str
    line: str
    than: Annotated[tuple[str, ...], Field(min_length=1)]


class EmbeddingBoardConfig(Config):
    dataset: str
    data: IngestConfig | None = None
    """Null: the source of the data set's board."""
    split: SplitConfig = SplitConfig(protocol="held_out_items")
    limits: LimitsConfig = LimitsConfig()
    images: ImageSourceConfig = ImageSourceConfig()
    """Where pictures come from, for encoders that look at them."""
    posts: dict[str, PostConfig] = Field(default_factory=dict)
    """Name -> post-processing that rows may ask for."""
    against: str
    """Name of the line that every other is compared with."""
    questions: tuple[QuestionConfig, ...] = ()
    """What is asked of other lines, apart from that."""
    rows: dict[str, Row]

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        names = [entry.name for entry in self.entries()]
        if len(set(names)) != len(names):
            raise ValueError(f"two lines have the same name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
        if self.against not in names:
            raise ValueError(f"against: no line {self.against!r}; there are: {', '.join(names)}")
        asked = {name for question in self.questions for name in (question.line, *question.than)}
        if strange := sorted(asked - set(names)):
            raise ValueError(f"questions: no line {', '.join(strange)}; there are: {', '.join(names)}")
        parts = [entry.name for entry in self.entries() if isinstance(entry.source, EncoderRow | MadeRow)]
        for name, row in self.rows.items():
            if unknown := [part for part in row.parts if part not in parts] if isinstance(row, ConcatRow) else []:
                raise ValueError(f"row {name!r}: no line that is not trained is called {', '.join(unknown)}; there are: {', '.join(parts)}")
        return self

    @classmethod
    def of_dataset(cls, dataset: str, folder: Path = CONFIGS) -> Self:
        """Raises ConfigError: no such file (lists those that exist)."""
        path = folder / dataset / FILE
        if not path.is_file():
            known = sorted(p.parent.name for p in folder.glob(f"*/{FILE}"))
            raise ConfigError(f"{path}: no such file; boards of embeddings exist for: {', '.join(known) or 'none'}")
        board = cls.parse(expanded(read_yaml(path), str(path)), source=str(path))
        if board.dataset != dataset:
            raise ConfigError(f"{path}: dataset is {board.dataset!r}, expected the folder's name, {dataset!r}")
        return board

    def source(self) -> IngestConfig:
        return self.data if self.data is not None else BoardConfig.of_dataset(self.dataset).data

    def entries(self) -> list[Entry]:
        """All lines, in the order of the file. Raises ValueError: a row asks for a post-processing that is not there."""
        return [entry for name, row in self.rows.items() for entry in self._of_row(name, row)]

    def _of_row(self, name: str, row: AnyRow) -> Iterator[Entry]:
        if isinstance(row, ConcatRow):
            yield Entry(name, row.label, row, None)
            return
        if isinstance(row, JointRow):
            yield from self._of_joint(name, row)
            return
        self._require_posts(name, row.posts)
        varied = row.vary if isinstance(row, EncoderRow) else {}
        for values in itertools.product(*varied.values()):
            told = [_told(option, value) for option, value in zip(varied, values, strict=True)]
            for post in row.posts:
                line = "-".join([name, *map(_slug, told), *([post] if post != NONE else [])])
                label = ", ".join([row.label, *told, *([post.replace("_", " ")] if post != NONE else [])])
                encoder = _encoder(row, name, dict(zip(varied, values, strict=True))) if isinstance(row, EncoderRow) else None
                yield Entry(line, label, row, self.posts.get(post), encoder)

    def _of_joint(self, name: str, row: JointRow) -> Iterator[Entry]:
        self._require_posts(name, row.posts)
        for picture in row.pictures:
            for post in row.posts:
                line = "-".join([name, *([picture] if picture != OWN else []), *([post] if post != NONE else [])])
                label = ", ".join([row.label, *([f"picture {picture}"] if picture != OWN else []), *([post.replace("_", " ")] if post != NONE else [])])
                yield Entry(line, label, row, self.posts.get(post), picture=picture)

    def _require_posts(self, name: str, posts: tuple[str, ...]) -> None:
        if unknown := [post for post in posts if post != NONE and post not in self.posts]:
            raise ValueError(f"row {name!r}: no post-processing {', '.join(unknown)}; there are: {', '.join((NONE, *self.posts))}")


def _encoder(row: EncoderRow, name: str, options: dict[str, Any]) -> EncoderConfig:
    # Without the post-processing: its lines share one table.
    slug = _slug("_".join([name, *(_told(option, value) for option, value in options.items())]))
    stated = row.encoder.model_dump(mode="json", exclude_unset=True)
    return parse_encoder({**stated, "kind": row.encoder.kind, **options, "name": slug}, source=f"row {name}")


def _told(option: str, value: Any) -> str:
    if option == "layer":
        return "last layer" if value == -1 else f"layer {value}"
    return str(value) if isinstance(value, str) else f"{option.replace('_', ' ')} {value}"


def _slug(told: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", told.lower())
