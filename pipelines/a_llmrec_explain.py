"""What A-LLMRec writes: a recommendation with its reason and the favourite category of some users, kept as it came, and the page of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.a_llmrec import Prepared, fit, prepare
from pipelines.a_llmrec_config import AlignmentFile
from pipelines.a_llmrec_users import nums_of
from pipelines.board_folders import BOARDS
from pipelines.ledger import code_version
from pipelines.progress import RichReporter
from recsys.artifacts.atomic import read_json, write_bytes, write_json
from recsys.config import digest_of, read_yaml
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.alignment.a_llmrec import ALLMRec
    from recsys.alignment.language import Speaker
    from recsys.data.split import Cases
    from recsys.types import IntArray

ANSWERS, NOTES, PAGE = "explanations.json", "explanations.notes.yaml", "explanations.md"
SHOWN = 10
"""Titles of a history that the page shows."""


def explain_users(
    path: Path, console: Console, *, threads: int = 1, folder: Path | None = None, overrides: Sequence[str] = (), force: bool = False
) -> Path:  # fmt: skip
    """Train the file's `explained` model where that is not done, let it write, and write the page. Answers that are there are kept. Returns the page.

    What a reader finds wrong stands in `explanations.notes.yaml`, user_id -> a line, with `of`, the hash of the answers that were read.

    Raises:
        ConfigError: the file names no model that explains.
    """
    file = AlignmentFile.of_file(path, overrides)
    folder = folder or BOARDS / file.dataset
    if file.explained is None:
        raise ConfigError(f"{path}: no model explains; name one of {', '.join(file.models)} as `explained`")
    settings = {**file.settings(file.explained), "language": file.language.model_dump(mode="json"), "users": file.explained_users}
    answers = read_json(folder / ANSWERS) if (folder / ANSWERS).is_file() else None
    if force or answers is None or answers["config"] != settings:
        answers = {"config": settings, "command": f"recsys a-llmrec {path} --explain", **_answers(file, path, file.explained, threads, console)}
        write_json(folder / ANSWERS, answers)
    write_bytes(folder / PAGE, _page(file.dataset, answers, _notes(folder / NOTES, answers)).encode())
    return folder / PAGE


def digest_of_answers(answers: dict[str, Any]) -> str:
    return digest_of(answers["users"])[:12]


def _answers(file: AlignmentFile, path: Path, name: str, threads: int, console: Console) -> dict[str, Any]:
    import torch

    from recsys.alignment.language import Speaker

    torch.set_num_threads(threads)
    prepared = prepare(file, path, name, threads)
    stage1, stage2 = fit(file, name, 0, prepared)
    speaker = Speaker(stage2.model, file.language)
    cases, split = prepared.split.test, prepared.split
    chosen = nums_of(split, prepared.users.test[: file.explained_users])
    rows = [row for row in range(len(cases)) if cases.user_nums[row] in chosen]
    categories = dict(zip(prepared.loaded.catalog.items.ids, prepared.loaded.catalog.categories(), strict=True))
    of_item = [categories[item_id] for item_id in split.items.ids]
    names = sorted({category for each in of_item for category in each})
    users, started = [], time.perf_counter()
    with RichReporter(console).task("explanations", "users") as advance:
        for done, row in enumerate(rows):
            users.append(_user(prepared, stage2.model, speaker, cases, row, of_item, names))
            advance(done + 1, len(rows), "")
    return {
        "model": name,
        "label": file.model(name).label,
        "language_model": file.model(name).projection.model,
        "commit": code_version(),
        "threads": threads,
        "seconds": {"stage 1": round(stage1.seconds, 1), "stage 2": round(stage2.seconds, 1), "writing": round(time.perf_counter() - started, 1)},
        "users": users,
    }


def _user(
    prepared: Prepared, model: ALLMRec, speaker: Speaker, cases: Cases, row: int, of_item: Sequence[Sequence[str]], names: Sequence[str]
) -> dict[str, Any]:
    import numpy as np

    from recsys.types import Queries

    history = cases.inputs[row]
    everything = np.arange(model.n_items)
    scorer = model if model.config.catalogue_weight else model.aligned
    scores = scorer.score(Queries(cases.user_nums[row : row + 1], (history,)), everything)[0]
    scores[~scorer.scorable_items()] = -np.inf
    scores[cases.seen[row]] = -np.inf
    best = int(scores.argmax())
    titles = prepared.titles
    likely = speaker.favourite_scores(history, names) if names else np.zeros(0)
    return {
        "user_id": prepared.split.users.ids[int(cases.user_nums[row])],
        "history": [titles[item] for item in history[-SHOWN:].tolist()],
        "history_length": len(history),
        "recommended": titles[best],
        "recommended_categories": list(of_item[best]),
        "next": titles[int(cases.targets[row])],
        "reason": speaker.reason(history, best),
        "favourite": speaker.favourite(history),
        "favourite_by_likelihood": [names[place] for place in np.argsort(-likely)[:3].tolist()],
        "categories_of_history": _most_frequent(history, of_item),
    }


def _most_frequent(history: IntArray, of_item: Sequence[Sequence[str]]) -> dict[str, int]:
    return dict(Counter(category for item in history.tolist() for category in of_item[item]).most_common(3))


def _notes(path: Path, answers: dict[str, Any]) -> dict[str, str]:
    """Those of these very answers; none where the answers changed since they were read."""
    notes = read_yaml(path) if path.is_file() else {}
    return {str(user): str(text) for user, text in notes.get("users", {}).items()} if notes.get("of") == digest_of_answers(answers) else {}


def _page(dataset: str, answers: dict[str, Any], notes: dict[str, str]) -> str:
    from recsys.evaluation.report import md_text

    seconds = answers["seconds"]
    lines = [
        f"# What A-LLMRec writes on {md_text(dataset)}",
        "",
        f"Made by `{answers['command']}` at commit {answers['commit'][:12]}; {md_text(answers['label'])}. Every answer stands as the language model "
        f"({md_text(answers['language_model'])}) wrote it, greedily, cut at its longest length. Stage 2 took {seconds['stage 2']:,.0f} s, "
        f"the writing {seconds['writing']:,.0f} s, {answers['threads']} thread.",
        "",
        f"Answers {digest_of_answers(answers)}. *Wrong* is what a reader found (`{NOTES}`); the model does not know it.",
    ]
    for user in answers["users"]:
        counted = ", ".join(f"{name} {count}" for name, count in user["categories_of_history"].items())
        lines += [
            "",
            f"## User {md_text(user['user_id'])}",
            "",
            f"- Last of {user['history_length']} items: {md_text('; '.join(user['history']))}",
            f"- Recommended: **{md_text(user['recommended'])}** ({md_text(', '.join(user['recommended_categories']))}); next was: {md_text(user['next'])}",
            f"- Its reason: {md_text(user['reason'])}",
            f"- Its favourite category: {md_text(user['favourite'])}",
            f"- Likeliest of all categories: {md_text(', '.join(user['favourite_by_likelihood']))}; most frequent in the history: {md_text(counted)}",
            f"- **Wrong:** {md_text(notes.get(user['user_id'], 'not read yet.'))}",
        ]
    return "\n".join(lines) + "\n"
