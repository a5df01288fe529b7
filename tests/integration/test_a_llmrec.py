"""`recsys a-llmrec` on a small shop: runs and page, nothing done twice, a kill that changes nothing, and explanations kept as they came."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines import a_llmrec
from pipelines.a_llmrec_config import AlignmentFile
from pipelines.a_llmrec_explain import digest_of_answers
from pipelines.a_llmrec_users import FILE, UserList, cut_down, trained_on_few
from pipelines.board_training import load_board
from pipelines.cli import app
from recsys.errors import ConfigError
from recsys.evaluation.alignment_board import read_alignment_board
from recsys.testing.language_models import tiny_model

ITEMS, PEOPLE = 40, 40
CONFIG = Path("experiments/configs/shop/a_llmrec.yaml")
BOARD = Path("experiments/boards/shop")
BASELINES = """
dataset: shop
data:
  source:
    kind: table
    interactions: {path: $RECSYS_DATA/events.csv, columns: {user_id: user, item_id: item, time: ts}}
    items: {path: $RECSYS_DATA/items.csv, columns: {item_id: item, title: title, categories: kind}}
models:
  sasrec:
    kind: sequential
    label: SASRec
    settings: {encoder: {kind: sasrec, dim: 8, blocks: 1, heads: 1, max_length: 10}, training: {epochs: 2}, projection: false}
"""
ALIGNED = """
dataset: shop
texts: {kind: encoder, encoder: {model: hashed, template: "{title}"}}
train_users: 12
test_users: 10
validation_users: 6
negatives: 5
explained: main
explained_users: 2
models:
  main:
    label: A-LLMRec
    seeds: 2
    matching: &matching {dim: 8, recommend_weight: 0.1, warm_items: own, training: {epochs: 2}}
    projection: &projection
      model: MODEL
      layers: 1
      catalogue_dim: 4
      prompt: {history_items: 3, title_tokens: 6}
      training: {epochs: 3, batch_size: 4}
  cold:
    label: held-out items
    split: {protocol: held_out_items, held_out_share: 0.2}
    matching: *matching
    projection: *projection
  few:
    label: few users
    few_users: 5
    matching: *matching
    projection: {<<: *projection, catalogue_weight: 0, candidates: 3}
language: {max_new_tokens: 4}
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    events = [f"u{user},i{item},{step}" for user in range(PEOPLE) for step, item in enumerate(rng.permutation(ITEMS)[:7])]
    (tmp_path / "events.csv").write_text("user,item,ts\n" + "\n".join(events) + "\n")
    (tmp_path / "items.csv").write_text("item,title,kind\n" + "".join(f"i{n},thing {n},kind {n % 3}\n" for n in range(ITEMS)))
    (tmp_path / CONFIG).parent.mkdir(parents=True)
    (tmp_path / CONFIG).with_name("baselines.yaml").write_text(BASELINES)
    (tmp_path / CONFIG).write_text(ALIGNED.replace("MODEL", tiny_model(tmp_path / "llama", "llama", chat=True)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path))
    return tmp_path


def call(*arguments: str) -> str:
    return CliRunner().invoke(app, ["a-llmrec", str(CONFIG), *arguments], catch_exceptions=False).stdout


def test_each_model_has_its_runs_a_page_and_none_is_trained_twice(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def child(arguments: list[str]) -> None:
        started.append(arguments)
        a_llmrec.main(arguments)

    monkeypatch.setattr(a_llmrec, "_child", child)
    page = call()
    runs = {f"{run.model}-{run.document['seed']}": run for run in read_alignment_board(BOARD / "a_llmrec")}
    assert set(runs) == {"main-0", "main-1", "cold-0", "few-0"} and len(started) == 4
    assert page.endswith((BOARD / "a_llmrec.md").read_text()) and "A-LLMRec, titles" in page and "held-out items" in page
    document = json.loads((BOARD / "a_llmrec.json").read_text())
    assert [model["model"] for model in document["models"]] == ["main", "cold", "few"]
    main, cold = document["models"][0]["kinds"], document["models"][1]["kinds"]
    assert set(main) == {"test"} and set(cold) == {"test", "cold"} and main["test"]["catalogue"]["all"]["count"] == 10
    assert cold["cold"]["backbone"]["new items"]["recall@10"]["mean"] == 0.0, "who knows items by number alone never finds a new one"
    assert {"difference", "low", "high"} <= set(main["test"]["titles"]["all"]["hit@1"]) and "hit@1" in main["test"]["stage1"]["all"]
    assert "catalogue" not in document["models"][2]["kinds"]["test"], "a prompt that names candidates ranks these alone"
    run = runs["main-0"].document
    assert run["users"]["stage 2"] == 12 and run["command"] == f"recsys a-llmrec {CONFIG} --model main --seeds 1" and run["seconds"]["stage 2"] > 0
    assert runs["few-0"].document["users"]["stage 2"] == 5 and run["negatives"] == runs["main-1"].document["negatives"]
    call()
    assert len(started) == 4, "done already"
    call("--model", "main", "--seeds", "1", "--set", "models.main.projection.text_share=0.0")
    assert len(started) == 5, "other settings are another run"


def test_a_killed_run_ends_as_an_undisturbed_one(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.alignment import stage2

    class KilledError(Exception):
        pass

    monkeypatch.setattr(a_llmrec, "_child", a_llmrec.main)
    call("--model", "main", "--seeds", "1")
    (first,) = read_alignment_board(BOARD / "a_llmrec")
    for folder in Path(".recsys/boards/shop").glob("a_llmrec-*"):
        folder.rename(folder.with_name(f"old-{folder.name}"))
    whole = stage2.train

    def killed(*arguments: object, **options: object) -> object:
        told = options["progress"]

        def progress(epoch: int, *rest: object) -> None:
            told(epoch, *rest)  # type: ignore[operator]
            if epoch == 2:
                raise KilledError

        return whole(*arguments, **{**options, "progress": progress, "checkpoint_seconds": 0.0})  # type: ignore[arg-type]

    monkeypatch.setattr(stage2, "train", killed)
    with pytest.raises(KilledError):
        call("--model", "main", "--seeds", "1", "--force")
    monkeypatch.setattr(stage2, "train", whole)
    call("--model", "main", "--seeds", "1", "--force")
    (again,) = read_alignment_board(BOARD / "a_llmrec")
    assert again.document["figures"] == first.document["figures"] and again.document["curves"] == first.document["curves"]
    assert all((again.ranks[name].better == ranks.better).all() for name, ranks in first.ranks.items())


def test_explanations_are_kept_and_a_readers_notes_hold_for_these_answers_alone(shop: Path) -> None:
    page = call("--explain")
    answers = json.loads((BOARD / "explanations.json").read_text())
    assert len(answers["users"]) == 2 and page.count("not read yet.") == 2 and all(len(user["favourite_by_likelihood"]) == 3 for user in answers["users"])
    who = answers["users"][0]["user_id"]
    notes = BOARD / "explanations.notes.yaml"
    notes.write_text(f'of: "{digest_of_answers(answers)}"\nusers: {{{who}: it repeats itself}}\n')
    assert "it repeats itself" in call("--explain") and answers == json.loads((BOARD / "explanations.json").read_text())
    notes.write_text(f'of: "other"\nusers: {{{who}: it repeats itself}}\n')
    assert "it repeats itself" not in call("--explain")


def test_the_list_of_users_is_stored_and_few_users_know_nothing_of_the_others(shop: Path) -> None:
    file = AlignmentFile.of_file(CONFIG)
    split = load_board(file.board("main")).split
    users = UserList.stored(CONFIG.with_name(FILE), file, split)
    assert UserList.stored(CONFIG.with_name(FILE), file, split) == users and len(users.train) == 12 and len(set(users.test)) == 10 and not users.cold
    listed = cut_down(split, users)
    assert len(listed.test) == 10 and listed.digest == split.digest and len(listed.train) == PEOPLE
    few = trained_on_few(split, users, 5)
    assert (few.train.lengths > 0).sum() == 5 == len(few.validation) and len(few.test) == len(split.test) and few.digest != split.digest
    with pytest.raises(ConfigError, match="draw it again"):
        UserList.stored(CONFIG.with_name(FILE), file.model_copy(update={"test_users": 9}), split)
    with pytest.raises(ConfigError, match="there are: main, cold, few"):
        file.model("other")
    with pytest.raises(ConfigError, match="no model explains"):
        CliRunner().invoke(app, ["a-llmrec", str(CONFIG), "--explain", "--set", "explained=null"], catch_exceptions=False)
