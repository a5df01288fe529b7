"""Published figures of a data set: where they come from and in what they differ from a board's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.config import Config

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class Source(Config):
    title: str
    """Paper or repository, with what in it holds the figures."""
    where: str
    """Address without the scheme, such as github.com/owner/repository or arxiv.org/abs/number."""
    differs: str
    """In what its protocol differs from the board's: masking, ties, seeds, cases."""


class PublishedRow(Config):
    model: str
    metrics: dict[Literal["recall@5", "recall@10", "ndcg@5", "ndcg@10"], Share]
    source: str
    """A key of `sources`."""
    differs: str = ""
    """What this row adds to its source's."""


class Published(Config):
    dataset: str
    note: str = ""
    """In what the data themselves differ."""
    sources: dict[str, Source]
    rows: tuple[PublishedRow, ...]

    @model_validator(mode="after")
    def _sources_exist(self) -> Self:
        unknown = sorted({row.source for row in self.rows} - self.sources.keys())
        if unknown:
            raise ValueError(f"rows name unknown sources: {', '.join(unknown)}; there are: {', '.join(self.sources)}")
        return self

    @classmethod
    def of_dataset(cls, dataset: str, folder: Path) -> Self | None:
        """`<folder>/<dataset>.yaml`; None where nobody has collected any. Raises ConfigError: not of this form."""
        path = folder / f"{dataset}.yaml"
        return cls.read(path) if path.is_file() else None

    def differs(self, row: PublishedRow) -> str:
        return "; ".join(part for part in (self.sources[row.source].differs, row.differs) if part)
