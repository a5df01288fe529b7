"""`ItemCatalog`: what is known of each item besides its interactions."""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import cached_property, lru_cache

import polars as pl

from recsys.data.vocabulary import Vocabulary
from recsys.errors import ConfigError, DataError

IMAGE, IMAGE_PATH, IMAGE_URL = "image", "image_path", "image_url"
IMAGE_FIELDS = (IMAGE, IMAGE_PATH, IMAGE_URL)


@dataclass(frozen=True)
class ItemCatalog:
    """Row r of `table` is item_num r. Columns: `item_id` (str) and any of `title`, `year`, `description`, `brand` (str,
    null where missing), `categories` (list of str, never null), and for a picture `image` (the file's bytes), `image_path`, `image_url`
    (str), null where missing; see `recsys.embeddings.image_source`."""

    table: pl.DataFrame

    def __post_init__(self) -> None:
        if "item_id" not in self.table.columns:
            raise DataError(f"a catalog needs the column 'item_id', found {self.table.columns}")

    @cached_property
    def items(self) -> Vocabulary:
        return Vocabulary(self.table["item_id"].to_list())

    def __len__(self) -> int:
        return len(self.table)

    def titles(self) -> list[str]:
        """One display name a row; the item_id where there is no title."""
        if "title" not in self.table.columns:
            return list(self.items.ids)
        return [title or item_id for title, item_id in self.table.select("title", "item_id").iter_rows()]

    def categories(self) -> list[list[str]]:
        if "categories" not in self.table.columns:
            return [[] for _ in range(len(self))]
        return [row or [] for row in self.table["categories"].to_list()]

    def without_pictures(self) -> ItemCatalog:
        """The same without the columns of pictures."""
        return ItemCatalog(self.table.drop(IMAGE_FIELDS, strict=False))

    def texts(self, template: str) -> list[str]:
        """One text a row, "" where no field of the template has a value. See `render`."""
        return [render(template, row) for row in self.table.iter_rows(named=True)]


def render(template: str, fields: dict[str, object]) -> str:
    """Fill `{title}. {categories}.`-like templates. A template is split at `|`; a part whose fields are all empty is
    left out, so that a missing year leaves no empty brackets: `{title}| ({year})|. Genres: {categories}.`

    >>> render("{title}| ({year})", {"title": "Alien", "year": "1979"}), render("{title}| ({year})", {"title": "Alien", "year": None})
    ('Alien (1979)', 'Alien')

    Raises:
        ConfigError: the template names a field that the item does not have.
    """
    rendered = []
    for part, names in _parts(template):
        missing = [name for name in names if name not in fields]
        if missing:
            raise ConfigError(f"template {template!r} names the field {missing[0]!r}; the catalog has: {', '.join(sorted(fields))}")
        values = {name: _as_text(fields[name]) for name in names}
        if not names or any(values.values()):
            rendered.append((bool(names), part.format(**values)))
    return "".join(text for _, text in rendered).strip() if any(has_value for has_value, _ in rendered) else ""


@lru_cache(maxsize=64)
def _parts(template: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each part and the fields that it names."""
    return tuple((part, tuple(name for _, name, _, _ in string.Formatter().parse(part) if name)) for part in template.split("|"))


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return ", ".join(str(v) for v in value) if isinstance(value, list) else str(value)
