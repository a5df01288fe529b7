"""`recsys tag-board` on a planted graph: known answers, cells that are computed once, labels of test nodes that nothing reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from pipelines import tag_board, tag_materials
from pipelines.cli import app
from pipelines.progress import SilentReporter
from pipelines.tag_board import CellStore, run_board
from pipelines.tag_config import TagBoardConfig
from pipelines.tag_rows import unpacked
from recsys.errors import ArtifactError, ConfigError, RetryableError
from recsys.generation.generator import Generation
from recsys.generation.prompt import Prompt
from tests.unit.generation.fakes import FakeGenerator

N, CLASSES = 120, ("animals", "metals")
WORDS = {"animals": ["fox", "wolf", "badger", "otter", "heron"], "metals": ["iron", "copper", "zinc", "cobalt", "nickel"]}
BAD = 4
"""Node whose explanation is never usable."""


def label_of(node: int) -> int:
    return node % 2


def text_of(node: int) -> str:
    words = WORDS[CLASSES[label_of(node)]]
    return f"Number {node}x: " + " ".join(words[(node // 2 + step) % 5] for step in range(3))


def planted(folder: Path, hidden: tuple[int, ...] = ()) -> Path:
    """Two groups with words and edges of their own. hidden: nodes whose stated label is the other one."""
    labels = [1 - label_of(node) if node in hidden else label_of(node) for node in range(N)]
    parts = ["train" if node < 12 else "val" if node < 42 else "test" for node in range(N)]
    nodes = {"node_id": range(N), "title": [text_of(node) for node in range(N)], "abstract": [""] * N, "label": labels, "split": parts}
    pl.DataFrame(nodes | {"label_name": [CLASSES[label] for label in labels]}).write_parquet(folder / "nodes.parquet")
    pairs = [(node, node + step) for node in range(N) for step in (2, 4) if node + step < N]
    pl.DataFrame(pairs, schema=["src", "dst"], orient="row").write_parquet(folder / "edges.parquet")
    (folder / "answers.jsonl").write_text("")
    return folder


NETWORK = {"gnn": {"kind": "gcn", "layers": 2, "hidden": 8, "dropout": 0.0}, "epochs": 40, "patience": 40}


def config_of(folder: Path, **more: Any) -> TagBoardConfig:
    writer = {"kind": "imported", "file": str(folder / "answers.jsonl"), "name": "fake"}
    return TagBoardConfig.parse(
        {
            "dataset": "tag_planted",
            "folder": str(folder),
            "classes": {name: f"all {name}" for name in CLASSES},
            "seeds": 2,
            "splits": {"public": {"kind": "public"}, "random": {"kind": "share", "train": 0.3, "validation": 0.3}},
            "features": {
                "tfidf": {"kind": "tfidf", "label": "words", "words": 30},
                "hashed": {"kind": "encoder", "label": "hashed", "encoder": {"model": "hashed", "template": "{text}"}, "post": {"kind": "centre"}},
            },
            "networks": {
                "public": {"gcn": NETWORK, "mlp": {**NETWORK, "gnn": {"kind": "mlp", "layers": 2, "hidden": 8}}},
                "random": {"gcn": NETWORK},
            },
            "tape": {
                "features": "hashed", "splits": ["public"], "networks": ["gcn"], "width": 4, "writer": writer,
                "task": {"role": "You know things.", "noun": "text", "question": "What is it about?", "top": 2},
            },
            "shots": {
                "ks": [1, 2], "features": "hashed", "network": NETWORK, "validation": 20, "test": 40, "writer": writer, "against": ["plain"],
                "task": {"domain": "nature", "samples": 3},
                "predictor": {"epochs": 5},
                "variants": {
                    "plain": {"label": "nothing added"},
                    "names": {"label": "class names", "adds": "names", "link": {"threshold": -1, "minimum": 0}},
                    "written": {"label": "written texts", "adds": "samples", "link": {"threshold": -1, "minimum": 0}, "filter": None},
                    "filtered": {"label": "written texts, filtered", "adds": "samples"},
                    "fewer": {"label": "one text a class", "adds": "samples", "filter": None, "link": None, "samples": 1},
                    "both": {"label": "texts and names", "adds": "both", "filter": None, "link": None},
                    "bare": {"label": "no edges, no filter, no examples", "adds": "samples", "link": None, "filter": None, "examples": 0},
                },
            },
            "trials": {"public-tfidf-gcn": [[], ["gnn.hidden=4"]]},
            "trial_seeds": 1,
            "notes": ["a note"],
            **more,
        }
    )  # fmt: skip


def answer(prompt: Prompt) -> str:
    """An expert, but for one text; what it writes of a class has the class's words and a number of its own."""
    if prompt.user.startswith("<text>") or "Choose from" in prompt.system:
        if f"Number {BAD}x:" in prompt.user:
            return "I would rather not."
        found = "animals" if any(word in prompt.user for word in WORDS["animals"]) else "metals"
        return f"Labels: all {found}\nExplanation: It names {' and '.join(WORDS[found][:3])} among others."
    name = "animals" if "on all animals" in prompt.user else "metals"
    if name == "metals" and prompt.sample == 2:
        return "No."
    return f"Title: Sample {prompt.sample}z. Abstract: " + " ".join(WORDS[name]) + f" and once more {WORDS[name][prompt.sample]} in nature as it is."


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeGenerator:
    found = FakeGenerator(answer)

    def loaded(config: Any) -> FakeGenerator:
        found.generator_id = config.generator_id
        return found

    monkeypatch.setattr(tag_materials, "load_generator", loaded)
    return found


def run(folder: Path, **more: Any) -> dict[str, Any]:
    options = {name: more.pop(name) for name in ("rows", "finished_only", "tune") if name in more}
    return run_board(config_of(folder, **more), SilentReporter(), folder / "board", root=folder / "root", threads=1, **options)


def lines_of(document: dict[str, Any]) -> dict[str, Any]:
    return {line["name"]: line for line in document["lines"]}


def test_separable_classes_are_found_and_what_is_finished_is_not_computed_again(tmp_path: Path, fake: FakeGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    document = run(planted(tmp_path))
    lines = lines_of(document)
    for name in ("public-tfidf-gcn", "public-tfidf-mlp", "random-hashed-gcn"):
        assert lines[name]["values"]["accuracy"]["test"] == {"mean": 1.0, "deviation": 0.0, "seeds": [1.0, 1.0]}
    tape = lines["public-tape-gcn"]
    assert tape["values"]["mean"]["test"]["mean"] == 1.0 and tape["values"]["text"]["test"]["mean"] == 1.0
    assert tape["fusion"]["tests"]["mean"] == {"difference": 0.0, "p_t": 1.0, "p_nodes": 1.0}
    # One malformed answer: asked twice, counted, missing; the others stand.
    assert tape["facts"]["retried"] == 1 and tape["facts"]["explained"] == N - 1 == tape["facts"]["ranked"]
    assert tape["facts"]["missing"] == {"missing: no labelled line": 1}
    assert tape["values"]["llm"]["test"]["mean"] == 1.0 and tape["values"]["llm"]["validation"]["mean"] == 1.0  # node 4 is a training node
    written = lines["1shot-written"]["facts"]
    assert written["written"] == 5 and written["retried"] == 1 and sum(written["missing"].values()) == 1
    assert written["edges"] > 0 and lines["1shot-bare"]["facts"]["edges"] == 0 and lines["1shot-bare"]["facts"]["added"] == 5
    filtered = lines["1shot-filtered"]["facts"]
    assert filtered["added"] + sum(filtered["dropped"].values()) == 5
    assert lines["1shot-names"]["facts"]["added"] == 2 and lines["1shot-both"]["facts"]["added"] == 7
    assert lines["1shot-fewer"]["facts"]["added"] == 2
    assert set(lines["1shot-written"]["against"]) == {"plain"} and "against" not in lines["1shot-plain"]
    asked = len(fake.asked)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("computed again")

    monkeypatch.setattr(tag_board.ClassRow, "measure", refuse)
    monkeypatch.setattr("pipelines.tag_rows.run_tape", refuse)
    monkeypatch.setattr("pipelines.tag_rows.classify", refuse)
    assert run(tmp_path) == document and len(fake.asked) == asked
    # Another setting of one network: its rows alone are computed.
    changed = {"public": {"gcn": NETWORK, "mlp": {**NETWORK, "gnn": {"kind": "mlp", "hidden": 4}}}, "random": {"gcn": NETWORK}}
    with pytest.raises(AssertionError, match="computed again"):
        run(tmp_path, networks=changed)
    left = lines_of(run(tmp_path, networks=changed, finished_only=True))
    assert "public-tfidf-mlp" not in left and "public-tfidf-gcn" in left


def test_a_killed_run_loses_one_cell(tmp_path: Path, fake: FakeGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(tmp_path)
    measure, done = tag_board.ClassRow.measure, []

    def dying(row: Any, materials: Any, seed: int) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append((row.name, seed))
        return measure(row, materials, seed)

    monkeypatch.setattr(tag_board.ClassRow, "measure", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, rows=["public"])
    stored = CellStore.read(tmp_path / "board" / "cells.json").cells
    assert [(name, int(seed)) for name, cells in stored.items() for seed in cells] == done
    before = json.dumps(stored, sort_keys=True)
    done.clear()
    done.extend([("", 0)] * -10)
    monkeypatch.setattr(tag_board.ClassRow, "measure", measure)
    run(tmp_path, rows=["public-tfidf"])
    after = CellStore.read(tmp_path / "board" / "cells.json").cells
    assert all(after[name][seed] == cell for name, cells in json.loads(before).items() for seed, cell in cells.items())


def test_labels_of_test_nodes_reach_neither_features_nor_prompts_nor_what_is_learned(tmp_path: Path, fake: FakeGenerator) -> None:
    """With every second test label wrong the same nodes are classified the same way: rights and wrongs change places there alone."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    hidden = tuple(range(43, N, 3))
    rows = ["public-hashed", "public-tape"]
    one, two = (run(planted(tmp_path / name, nodes), rows=rows) for name, nodes in (("one", ()), ("two", hidden)))
    asked = list(fake.asked)
    assert {prompt.digest for prompt in asked[: len(asked) // 2]} == {prompt.digest for prompt in asked[len(asked) // 2 :]}
    cells = [CellStore.read(tmp_path / name / "board" / "cells.json").cells for name in ("one", "two")]
    test = np.arange(42, N)
    for name in ("public-hashed-gcn", "public-hashed-mlp", "public-tape-gcn"):
        for seed in ("0", "1"):
            for value, told in cells[0][name][seed]["values"].items():
                other = cells[1][name][seed]["values"][value]
                assert told["validation"] == other["validation"]
                flipped = unpacked(told["right"], len(test)) != unpacked(other["right"], len(test))
                assert np.array_equal(test[flipped], np.array(hidden)), (name, value)
    assert lines_of(one).keys() == lines_of(two).keys()


def test_examples_in_prompts_are_training_nodes_of_one_shot_for_every_k(tmp_path: Path, fake: FakeGenerator) -> None:
    run(planted(tmp_path), rows=["1shot-written", "2shot-written"])
    shown = [prompt.user for prompt in fake.asked if "An example" in prompt.user]
    assert len({user.partition("Number ")[2].partition("x:")[0] for user in shown}) == 4  # two classes, two seeds
    assert len(shown) == 2 * 2 * 3 + 2  # and what was asked twice


def test_trials_are_judged_on_validation_alone(tmp_path: Path, fake: FakeGenerator) -> None:
    document = run(planted(tmp_path), tune=True)
    trials = [line for line in document["lines"] if line["group"] == "trials"]
    assert [line["shown"]["overrides"] for line in trials] == ["", "gnn.hidden=4"]
    assert all(set(line["values"]["accuracy"]) == {"validation"} for line in trials)
    assert not fake.asked


def test_the_command_writes_the_board_and_prints_it(tmp_path: Path, fake: FakeGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(planted(tmp_path), seeds=1)
    (tmp_path / "configs" / "tag_planted").mkdir(parents=True)
    (tmp_path / "configs" / "tag_planted" / "board.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    original = TagBoardConfig.of_dataset.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(TagBoardConfig, "of_dataset", classmethod(lambda cls, dataset, overrides=None: original(cls, dataset, overrides, tmp_path / "configs")))
    arguments = ["tag-board", "tag_planted", "--folder", str(tmp_path / "boards"), "--root", str(tmp_path / "root"), "--threads", "1"]
    done = CliRunner().invoke(app, [*arguments, "--row", "public", "--row", "1shot"])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "boards" / "tag_planted" / "board.md").read_text()
    for part in ("## Split public", "## TAPE", "## LLM4NG", "## Costs", "a note", "asked twice: 1", "missing: no labelled line 1", "100.00"):
        assert part in text, part
    assert "## Split random" not in text
    again = CliRunner().invoke(app, [*arguments, "--finished-only", "--json"])
    document = json.loads((tmp_path / "boards" / "tag_planted" / "board.json").read_text())
    assert again.exit_code == 0 and document["command"] == "recsys tag-board tag_planted"
    assert (tmp_path / "boards" / "tag_planted" / "board.md").read_text() == text


def test_what_does_not_fit_is_refused(tmp_path: Path, fake: FakeGenerator) -> None:
    planted(tmp_path)
    with pytest.raises(ConfigError, match="no row begins with tope"):
        run(tmp_path, rows=["tope"])
    with pytest.raises(ConfigError, match="classes"):
        run(tmp_path, classes={"metals": "metals", "animals": "animals"})
    with pytest.raises(ConfigError, match=r"tape.features: no tfidf"):
        config_of(tmp_path, tape={**config_of(tmp_path).model_dump(mode="json")["tape"], "features": "tfidf"})
    with pytest.raises(ConfigError, match="networks: no private"):
        config_of(tmp_path, networks={"private": {"gcn": NETWORK}})
    with pytest.raises(ConfigError, match="boards of node classification exist for"):
        TagBoardConfig.of_dataset("tag_nothing")
    (tmp_path / "board").mkdir(exist_ok=True)
    (tmp_path / "board" / "cells.json").write_text("[]")
    with pytest.raises(ArtifactError, match="not the cells of a board"):
        run(tmp_path, rows=["public"])


def test_two_runs_of_one_board_do_not_mix(tmp_path: Path, fake: FakeGenerator) -> None:
    planted(tmp_path)
    with tag_board._alone(tmp_path / "board"), pytest.raises(RetryableError, match="another run"):
        run(tmp_path, rows=["public"])


def test_the_fake_knows_how_a_generator_answers() -> None:
    assert isinstance(FakeGenerator(answer).generate([Prompt("on all metals", sample=1)])[0], Generation)
