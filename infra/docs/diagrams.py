"""The diagrams of the concept pages: SVG without scripts, readable on light and dark ground, in colour and in grey.

Text stands in boxes alone, which bring their own ground; roles differ by shade and by the roundness of the corners.
`python -m infra.docs.diagrams` writes them to `docs/diagrams/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).parent.parent.parent / "docs" / "diagrams"
Role = Literal["data", "step", "model", "out"]
STYLES: dict[Role, tuple[str, str, int]] = {
    "data": ("#d6e6f5", "#34618a", 2),
    "step": ("#f4f6f8", "#5b6b7a", 12),
    "model": ("#fbe3bd", "#8a5a12", 6),
    "out": ("#bfe3c6", "#2f6b3a", 18),
}
"""Role -> ground, edge, radius of the corners."""
INK, LINE = "#17202a", "#808b96"
LINE_HEIGHT, PADDING, MARGIN = 18, 10, 4
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """x, y: of the upper left corner. The first line is the name, the others say what it is."""

    x: float
    y: float
    w: float
    lines: tuple[str, ...]
    role: Role = "step"

    @property
    def h(self) -> float:
        return LINE_HEIGHT * len(self.lines) + 2 * PADDING

    def at(self, side: str, share: float = 0.5) -> Point:
        """On the side l, r, t or b, so far along it from the left or the top."""
        if side in "lr":
            return self.x + (self.w if side == "r" else 0), self.y + self.h * share
        return self.x + self.w * share, self.y + (self.h if side == "b" else 0)


@dataclass(frozen=True)
class Arrow:
    start: Point
    end: Point
    via: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Diagram:
    title: str
    boxes: Sequence[Box]
    arrows: Sequence[Arrow] = ()

    def svg(self) -> str:
        corners = [(box.x + box.w, box.y + box.h) for box in self.boxes] + [point for arrow in self.arrows for point in arrow.via]
        width, height = (max(corner[axis] for corner in corners) + 2 * MARGIN for axis in (0, 1))
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-{MARGIN} -{MARGIN} {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img"'
            ' font-family="system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif" font-size="13">',
            f"<title>{escape(self.title)}</title>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0 10 5 0 10z" fill="{LINE}"/></marker></defs>',
            *(_arrow(arrow) for arrow in self.arrows),
            *(line for box in self.boxes for line in _box(box)),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"


def _arrow(arrow: Arrow) -> str:
    path = "M" + " L".join(f"{x:g} {y:g}" for x, y in (arrow.start, *arrow.via, arrow.end))
    return f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.6" marker-end="url(#head)"/>'


def _box(box: Box) -> Iterator[str]:
    ground, edge, radius = STYLES[box.role]
    place = f'x="{box.x:g}" y="{box.y:g}" width="{box.w:g}" height="{box.h:g}"'
    yield f'<rect {place} rx="{radius}" fill="{ground}" stroke="{edge}" stroke-width="1.4"/>'
    for number, line in enumerate(box.lines):
        weight = ' font-weight="600"' if number == 0 else ""
        y = box.y + PADDING + LINE_HEIGHT * number + 13
        yield f'<text x="{box.x + box.w / 2:g}" y="{y:g}" text-anchor="middle" fill="{INK}"{weight}>{escape(line)}</text>'


def flow() -> Diagram:
    raw = Box(0, 0, 150, ("raw files", "events, items,", "pictures"), "data")
    ingest = Box(190, 0, 150, ("ingest", "clean tables;", "quarantine"))
    split = Box(380, 0, 150, ("split", "made once,", "hashed"))
    backbone = Box(570, 0, 150, ("backbone", "ID-only", "SASRec"))
    embed = Box(190, 125, 150, ("embed", "texts, pictures", "→ vectors"))
    graph = Box(380, 125, 150, ("graph (if asked)", "of training:", "one more signal"))
    rank = Box(570, 125, 150, ("rank", "IDs + signals", "→ one vector"), "model")
    evaluate = Box(570, 270, 150, ("evaluate", "every model,", "all items ranked"))
    publish = Box(380, 270, 150, ("publish", "parity, gate,", "registry, index"))
    service = Box(190, 270, 150, ("service", "scores as", "evaluated"), "out")
    arrows = [
        Arrow(raw.at("r"), ingest.at("l")),
        Arrow(ingest.at("r"), split.at("l")),
        Arrow(ingest.at("b"), embed.at("t")),
        Arrow(split.at("r"), backbone.at("l")),
        Arrow(split.at("b"), graph.at("t")),
        Arrow(split.at("b", 0.8), rank.at("t"), ((500, 100), (645, 100))),
        Arrow(embed.at("r"), graph.at("l")),
        Arrow(embed.at("b"), rank.at("b", 0.25), ((265, 225), (607.5, 225))),
        Arrow(graph.at("r"), rank.at("l")),
        Arrow(backbone.at("r"), evaluate.at("r"), ((745, 37), (745, 307))),
        Arrow(rank.at("b"), evaluate.at("t")),
        Arrow(evaluate.at("l"), publish.at("r")),
        Arrow(publish.at("l"), service.at("r")),
    ]
    return Diagram("One run: from raw files to a service", (raw, ingest, split, backbone, embed, graph, rank, evaluate, publish, service), arrows)


def nouns() -> Diagram:
    interactions = Box(0, 0, 190, ("Interactions", "user_num, item_num, time"), "data")
    catalog = Box(270, 0, 170, ("ItemCatalog", "a row an item"), "data")
    encoder = Box(500, 0, 190, ("Encoder", "contents → vectors"), "model")
    split = Box(0, 110, 190, ("Split", "training, cases, hash"), "data")
    table = Box(385, 110, 190, ("EmbeddingTable", "vectors, vocabulary,", "space_id"), "data")
    backbone = Box(0, 235, 190, ("Backbone", "represent(queries): (B, d)", "items(): (n, d)"), "model")
    head = Box(270, 235, 170, ("RankingHead", "signals → scores"), "model")
    scorer = Box(500, 235, 190, ("Scorer", "score(queries, item_nums):", "(B, C)"), "model")
    evaluate = Box(270, 345, 170, ("evaluate", "ranks of all items"))
    recommender = Box(500, 345, 190, ("Recommender", "items, scores, shares"), "out")
    arrows = [
        Arrow(interactions.at("b"), split.at("t")),
        Arrow(catalog.at("b"), table.at("t", 0.3), ((355, 85), (442, 85))),
        Arrow(encoder.at("b"), table.at("t", 0.7), ((595, 85), (518, 85))),
        Arrow(split.at("b"), backbone.at("t")),
        Arrow(table.at("b", 0.3), head.at("t"), ((442, 210), (355, 210))),
        Arrow(split.at("r"), head.at("t", 0.25), ((312.5, 138),)),
        Arrow(backbone.at("r"), head.at("l"), ((230, 272), (230, 263))),
        Arrow(head.at("r"), scorer.at("l"), ((470, 263), (470, 272))),
        Arrow(scorer.at("b"), recommender.at("t")),
        Arrow(scorer.at("b", 0.3), evaluate.at("t"), ((557, 326), (355, 326))),
    ]
    return Diagram("The nouns and who reads whom", (interactions, catalog, encoder, split, table, backbone, head, scorer, evaluate, recommender), arrows)


def identity() -> Diagram:
    facts = Box(
        0,
        0,
        280,
        (
            "what can move a vector",
            "model, revision, tokenizer",
            "template, prompt, length of a window",
            "layer, pooling, attention, unit length",
            "dtype, quantisation, dimensions",
            "size and decoder of pictures",
            "adapter, post-processing, split hash",
        ),
        "data",
    )
    digest = Box(320, 45, 120, ("sha256", "of all of it"))
    space = Box(480, 45, 220, ("space_id", "such as 94fe2e0af52b0dd3"), "data")
    names = ("cache of vectors", "embedding table", "trained ranker", "index, service")
    told = ("a folder a space", "states its space", "states what it was trained on", "ask before they read")
    readers = [Box(0, 190, 150, (names[0], told[0])), Box(164, 190, 150, (names[1], told[1])), Box(328, 190, 212, (names[2], told[2]), "model")]
    readers.append(Box(554, 190, 160, (names[3], told[3]), "out"))
    refused = Box(164, 290, 376, ("another space: SpaceMismatchError", "what came, what was expected, what to do"), "step")
    arrows = [Arrow(facts.at("r"), digest.at("l")), Arrow(digest.at("r"), space.at("l"))]
    arrows += [Arrow(space.at("b"), reader.at("t"), ((590, 172), (reader.at("t")[0], 172))) for reader in readers]
    arrows += [Arrow(reader.at("b"), refused.at("t", share)) for reader, share in ((readers[1], 75 / 376), (readers[2], 270 / 376))]
    return Diagram("The identity of an embedding space", (facts, digest, space, *readers, refused), arrows)


def splits() -> Diagram:
    words: dict[str, Role] = {"train": "data", "valid": "model", "test": "out", "cold": "out", "out": "step"}
    rows = {
        ("leave_last_out", "a user's events, oldest first"): ("train", "train", "train", "train", "valid", "test"),
        ("global_temporal", "two moments for all users"): ("train", "train", "train", "valid", "input", "test"),
        ("held_out_items", "some items leave training"): ("train", "out", "train", "train", "valid", "test"),
        ("held_out_targets", "some test targets leave it"): ("train", "train", "train", "out", "valid", "cold"),
    }
    boxes = []
    for number, (name, events) in enumerate(rows.items()):
        boxes.append(Box(0, 66 * number, 210, name))
        for place, word in enumerate(events):
            boxes.append(Box(226 + 80 * place, 66 * number + 9, 72, (word,), words.get(word, "step")))
    return Diagram("The four splits, as one user's events", boxes)


def ledger() -> Diagram:
    parts = Box(0, 0, 200, ("what decides a result", "the stage's version", "its configuration", "keys of its inputs", "torch, transformers"), "data")
    key = Box(250, 27, 110, ("key", "sha256"))
    asked = Box(410, 27, 130, ("ledger", "folder finished?"))
    cached = Box(590, 0, 130, ("yes: open", "check sha256"), "out")
    run = Box(410, 135, 130, ("no: run", "checkpoints in", "a scratch folder"))
    written = Box(210, 135, 150, ("write", "temporary, fsync,", "rename"))
    artifact = Box(0, 135, 160, ("Artifact", "files +", "manifest.json"), "data")
    arrows = [
        Arrow(parts.at("r"), key.at("l")),
        Arrow(key.at("r"), asked.at("l")),
        Arrow(asked.at("r"), cached.at("l"), ((565, 55), (565, 28))),
        Arrow(asked.at("b"), run.at("t")),
        Arrow(run.at("l"), written.at("r")),
        Arrow(written.at("l"), artifact.at("r")),
    ]
    return Diagram("The ledger: a stage runs once for each key", (parts, key, asked, cached, run, written, artifact), arrows)


def all_diagrams() -> dict[str, str]:
    """File name -> SVG."""
    return {f"{make.__name__}.svg": make().svg() for make in (flow, nouns, identity, splits, ledger)}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in all_diagrams().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
