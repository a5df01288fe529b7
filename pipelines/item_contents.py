"""`ItemContents`: what an encoder is given of each item of a catalog, or why it is given nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pipelines.item_rows import ItemRows
from recsys.data.catalog import ItemCatalog
from recsys.embeddings.configs import IMAGE, TEXT, EncoderConfig, reads
from recsys.embeddings.content import Content
from recsys.embeddings.image_source import ImageSource, Picture
from recsys.embeddings.limits import LimitsConfig
from recsys.embeddings.quarantine import Quarantine
from recsys.embeddings.refusals import NOT_DECODED
from recsys.types import IntArray

ITEM, PICTURE = "item", "picture"
EMPTY = "empty"
ROWS, ROWS_WITH_PICTURES = 16_384, 512
"""Items whose contents are in memory at once."""


class Refusal(NamedTuple):
    """part: "item", which then has no vector, or "picture", where the item keeps its text. reason: "kind: details"."""

    row: int
    part: str
    reason: str

    @property
    def kind(self) -> str:
        return f"{self.reason.partition(':')[0]} (text kept)" if self.part == PICTURE else self.reason.partition(":")[0]


@dataclass(frozen=True)
class ItemContents:
    """`quarantine`: a picture that this encoder could not decode before is left out where there is a text."""

    config: EncoderConfig
    rows: ItemRows
    limits: LimitsConfig
    images: ImageSource
    quarantine: Quarantine

    def __len__(self) -> int:
        return len(self.rows)

    def chunks(self, rows: IntArray) -> Iterator[IntArray]:
        """int64: `rows`, as many at a time as fit into memory with their contents."""
        size = ROWS_WITH_PICTURES if IMAGE in reads(self.config) else ROWS
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    def of(self, rows: IntArray) -> tuple[list[Content | None], list[Refusal]]:
        """rows: int64, ascending. One content an item, None where it gets no vector; and the refusals, of which a row may have one."""
        if not len(rows):
            return [], []
        looked_at = reads(self.config)
        part = self.rows.at(rows)
        texts = ItemCatalog(part).texts(self.config.template) if TEXT in looked_at else [""] * len(part)
        pictures = self.images.read(part) if IMAGE in looked_at else [Picture()] * len(part)
        contents: list[Content | None] = []
        refusals: list[Refusal] = []
        for row, text, picture in zip(rows.tolist(), texts, pictures, strict=True):
            content, why = self._one(text, picture)
            contents.append(content)
            if why:
                refusals.append(Refusal(row, PICTURE if content else ITEM, why))
        return contents, refusals

    def _one(self, text: str, picture: Picture) -> tuple[Content | None, str | None]:
        if (reason := self.limits.refusal(text)) is not None:
            return None, reason
        why = f"picture not read: {picture.reason}" if picture.reason else None
        content = Content(text if text.strip() else "", picture.data)
        if content.text and content.image is not None:
            refused = self.quarantine.reason(content.key) if len(self.quarantine) else None
            if refused is not None and refused.startswith(NOT_DECODED):
                content, why = Content(content.text), refused
        if not content:
            return None, why or f"{EMPTY}: {self._wanted()}"
        return content, why

    def _wanted(self) -> str:
        looked_at = reads(self.config)
        text = f"no field of the template {self.config.template!r} has a value" if TEXT in looked_at else ""
        return " and ".join(part for part in (text, "no picture" if IMAGE in looked_at else "") if part)
