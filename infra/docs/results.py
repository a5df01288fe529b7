"""What has been measured of each method, collected from the records of the boards: no figure of a method's page is typed by hand."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOTHING = "Not measured yet."


@dataclass(frozen=True)
class Method:
    """models: names on boards.  lines: names on boards of embeddings.  group: of lines on boards of node classification, which are named."""

    slug: str
    title: str
    models: str = "(?!)"
    lines: str = "(?!)"
    group: str = ""


METHODS = (
    Method("fused-ranker", "The fused ranker", models="fused_"),
    Method("sasrec", "SASRec, eSASRec, gSASRec", models="(sasrec|esasrec|gsasrec)"),
    Method("whitening", "Whitening", lines="(minilm|minilm_titles|smollm2|tfidf|image)(-|$)"),
    Method("a-llmrec", "A-LLMRec", models="(a_llmrec|allmrec|aligned)"),
    Method("lite-llm4rec", "Lite-LLM4Rec", models="(lite_|generative)"),
    Method("tape", "TAPE", models=".*tape", group="tape"),
    Method("llm4ng", "LLM4NG", models="graph_imagined", group="shots"),
    Method("promptreps", "PromptReps", lines="promptreps"),
    Method("notellm-2", "NoteLLM-2", lines="joint"),
    Method("fine-tuning", "Fine-tuned encoders", models="fused_tuned", lines=".*tuned"),
    Method("graphs", "Graphs", models="(graph_|fused_graph)"),
)


def page(boards: Path) -> str:
    lines = [
        "# Results by method",
        "",
        "Made of the records in `experiments/boards/` by `make docs`; do not edit. Mean ± standard deviation over seeds; the boards have intervals and tests.",
        "",
    ]
    for method in METHODS:
        found = [*_models(boards, method), *_lines(boards, method), *_nodes(boards, method)]
        lines += [f"## {method.title} {{ #{method.slug} }}", "", *(found or [NOTHING, ""])]
    return "\n".join(lines) + "\n"


def _models(boards: Path, method: Method) -> Iterator[str]:
    rows = []
    for dataset in sorted(path for path in boards.iterdir() if path.is_dir()):
        models: dict[str, list[dict[str, Any]]] = {}
        for file in sorted(dataset.glob("*-seed*.json")):
            record = json.loads(file.read_text(encoding="utf-8"))
            if re.match(method.models, record["model"]):
                models.setdefault(record["model"], []).append(record)
        for name, records in sorted(models.items(), key=lambda pair: -_mean(pair[1], "ndcg@10")):
            figures = [_figure([r["metrics"][metric] for r in records], 4) for metric in ("recall@10", "ndcg@10")]
            costs = [f"{_mean_of(records, key):,.{digits}f}" for key, digits in (("train_seconds", 0), ("inference_ms_per_user", 2))]
            parameters = f"{records[0]['parameters']:,}"
            label = f"{records[0]['label']} (`{name}`)"
            rows.append(f"| {_board(dataset, 'board')} | {label} | {len(records)} | {' | '.join([*figures, parameters, *costs])} |")
    if rows:
        yield "| board | model | seeds | Recall@10 | NDCG@10 | parameters | train s | ms a user |"
        yield "|---|---|---|---|---|---|---|---|"
        yield from [*rows, ""]


def _lines(boards: Path, method: Method) -> Iterator[str]:
    rows = []
    metrics = ("item_to_item recall@10", "over items recall@10", "cold recall@10", "cold_only recall@10")
    for file in sorted(boards.glob("*/embeddings.json")):
        document = json.loads(file.read_text(encoding="utf-8"))
        for line in document["lines"]:
            if re.match(method.lines, line["name"]):
                figures = [_figure(line["metrics"][metric]["seeds"], 4) for metric in metrics]
                rows.append(f"| {_board(file.parent, 'embeddings')} | {line['label']} | {line['dim']} | {' | '.join(figures)} |")
    if rows:
        yield "| board | vectors | dim | item to item R@10 | over items R@10 | cold R@10 | among cold items R@10 |"
        yield "|---|---|---|---|---|---|---|"
        yield from [*rows, ""]


def _nodes(boards: Path, method: Method) -> Iterator[str]:
    found = False
    for file in sorted(boards.glob("tag_*/board.json")):
        lines = json.loads(file.read_text(encoding="utf-8"))["lines"]
        if count := sum(line["group"] == method.group for line in lines):
            found = True
            yield f"- Node classification, {count} lines: {_board(file.parent, 'board')}"
    if found:
        yield ""


def _board(dataset: Path, part: str) -> str:
    """A link where the board was rendered."""
    return f"[{dataset.name}]({dataset.name}-{part}.md)" if (dataset / f"{part}.md").is_file() else dataset.name


def _figure(values: list[float], digits: int) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _mean(records: list[dict[str, Any]], metric: str) -> float:
    return statistics.fmean(record["metrics"][metric] for record in records)


def _mean_of(records: list[dict[str, Any]], key: str) -> float:
    return statistics.fmean(record[key] for record in records)
