"""Answers that were paid for once: stored by content, whole after a kill, and never asked again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.errors import ArtifactError, DataError
from recsys.generation.cache import CachedGenerator, GenerationCache
from recsys.generation.generator import Generation, Generator
from recsys.generation.imported import ImportedGenerator, ImportedGeneratorConfig, export_prompts
from recsys.generation.local import LocalGeneratorConfig
from recsys.generation.opening import open_generator
from recsys.generation.prompt import Prompt
from recsys.generation.sampling import Sampling
from tests.unit.generation.fakes import FakeGenerator

REPOSITORY = Path(__file__).parents[3]


def cached(root: Path, fake: FakeGenerator, **options: int) -> CachedGenerator:
    return CachedGenerator(GenerationCache(root, fake.generator_id), lambda: fake, **options)


def never() -> Generator:
    raise AssertionError("the model was loaded")


def test_a_second_run_is_free(tmp_path: Path) -> None:
    fake = FakeGenerator(lambda prompt: prompt.user.upper() + "\ud800é\n")
    prompts = [Prompt("a"), Prompt("b"), Prompt("a"), Prompt("a", sample=1)]
    first = cached(tmp_path, fake, shard_rows=2)
    done: list[int] = []
    answers = first.generate(prompts, on_done=lambda number, _: done.append(number))
    assert isinstance(first, Generator)
    assert [answer.text[0] for answer in answers] == list("ABAA") and sorted(done) == [0, 1, 2, 3]
    assert len(fake.asked) == 3  # equal prompts once
    assert (first.hits, first.misses, len(first.cache)) == (0, 4, 3)
    assert len(list((tmp_path / "fake").glob("*.jsonl"))) == 2
    second = CachedGenerator(GenerationCache(tmp_path, "fake"), never)
    assert second.generate(prompts) == answers and (second.hits, second.misses) == (4, 0)
    other = FakeGenerator(lambda prompt: "other", "other")
    assert cached(tmp_path, other).generate([Prompt("a")])[0].text == "other"


def test_errors_are_not_kept_and_what_was_done_before_a_failure_is(tmp_path: Path) -> None:
    def answer(prompt: Prompt) -> str | Generation:
        if prompt.user == "fails":
            raise OSError("no network")
        return Generation("", "error", error="too long") if prompt.user == "long" else prompt.user

    fake = FakeGenerator(answer)
    with pytest.raises(OSError, match="no network"):
        cached(tmp_path, fake).generate([Prompt("good"), Prompt("long"), Prompt("fails"), Prompt("later")])
    cache = GenerationCache(tmp_path, "fake")
    assert cache.get(Prompt("good")) == Generation("good", "stop", 2, 3) and len(cache) == 1
    assert cached(tmp_path, fake).generate([Prompt("long")])[0].error == "too long"


CHILD = """
import sys, time
from pathlib import Path
from recsys.generation.cache import CachedGenerator, GenerationCache
from recsys.generation.prompt import Prompt
from tests.unit.generation.fakes import FakeGenerator
def answer(prompt):
    time.sleep(0.01)
    return prompt.user.upper()
generator = CachedGenerator(GenerationCache(Path(sys.argv[1]), "fake"), lambda: FakeGenerator(answer), shard_rows=8)
generator.generate([Prompt(f"p{number}") for number in range(200)], on_done=lambda number, _: print(number, flush=True))
"""


@pytest.mark.parametrize("after", [1, 23, 64])
def test_a_killed_run_loses_at_most_one_shard(tmp_path: Path, after: int) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as child:
        assert child.stdout is not None
        for _ in range(after):
            done = int(child.stdout.readline()) + 1
        child.send_signal(signal.SIGKILL)
    kept = GenerationCache(tmp_path, "fake")
    assert len(kept) >= done - 8 and len(kept) < 200
    fake = FakeGenerator(lambda prompt: prompt.user.upper())
    prompts = [Prompt(f"p{number}") for number in range(200)]
    assert [answer.text for answer in cached(tmp_path, fake).generate(prompts)] == [prompt.user.upper() for prompt in prompts]
    assert len(fake.asked) == 200 - len(kept)


def test_a_damaged_shard_is_refused_by_name(tmp_path: Path) -> None:
    cached(tmp_path, FakeGenerator(lambda _: "text")).generate([Prompt("a")])
    (shard,) = (tmp_path / "fake").glob("*.jsonl")
    shard.write_text(shard.read_text().replace('text"', 'Text"', 1))
    with pytest.raises(ArtifactError, match="sha256 differs"):
        GenerationCache(tmp_path, "fake")


@pytest.mark.parametrize("line", ['{"key": "k", "text": 1, "finish": "stop", "prompt_tokens": 1, "completion_tokens": 1}', "[]", "{", '{"key": "k"}'])
def test_a_shard_of_another_kind_is_refused(tmp_path: Path, line: str) -> None:
    import hashlib

    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / f"{hashlib.sha256(line.encode()).hexdigest()}.jsonl").write_text(line)
    with pytest.raises(ArtifactError, match="not answers of this version"):
        GenerationCache(tmp_path, "fake")


def test_the_loaded_generator_must_be_the_caches(tmp_path: Path) -> None:
    generator = CachedGenerator(GenerationCache(tmp_path, "fake"), lambda: FakeGenerator(lambda _: "x", "another"))
    with pytest.raises(ArtifactError, match="another was loaded for the cache of fake"):
        generator.generate([Prompt("a")])


def test_a_model_from_its_config(tmp_path: Path, alphabet_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LocalGeneratorConfig(model=str(alphabet_folder), dtype="float32", sampling=Sampling(max_new_tokens=3))
    answers = open_generator(config, tmp_path).generate([Prompt("a"), Prompt("b")])
    assert [answer.text for answer in answers] == ["abc", "abc"]
    stated = json.loads((tmp_path / config.generator_id / "generator.json").read_text())
    assert stated["sampling"]["max_new_tokens"] == 3 and str(alphabet_folder) not in json.dumps(stated)
    monkeypatch.setattr("recsys.generation.opening.load_generator", lambda _: never())
    assert open_generator(config, tmp_path).generate([Prompt("b"), Prompt("a")]) == answers


def test_prompts_go_out_and_answers_come_back(tmp_path: Path) -> None:
    prompts = [Prompt("Genre of Heat?", "Be brief."), Prompt("Genre of Babe?"), Prompt("Genre of Heat?", "Be brief.")]
    export_prompts(prompts, tmp_path / "prompts.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert [row["user"] for row in rows] == ["Genre of Heat?", "Genre of Babe?"]
    answers = tmp_path / "answers.jsonl"
    by_text = {"user": "Genre of Babe?", "text": "Comedy"}
    answers.write_text("\n".join([json.dumps({"key": rows[0]["key"], "text": "Crime"}), "", json.dumps(by_text)]))
    config = ImportedGeneratorConfig(file=answers, name="a stronger model")
    generator = ImportedGenerator.load(config)
    assert generator.answered == 2 and isinstance(generator, Generator)
    assert [answer.text for answer in generator.generate(prompts)] == ["Crime", "Comedy", "Crime"]
    assert generator.generate([Prompt("unknown")])[0] == Generation("", "error", error="not among the imported answers")
    assert [answer.text for answer in open_generator(config, tmp_path / "cache").generate(prompts)] == ["Crime", "Comedy", "Crime"]
    answers.write_text(json.dumps(by_text))
    assert config.generator_id != generator.generator_id


@pytest.mark.parametrize(
    ("lines", "expected"),
    [("{", "answers.jsonl:1: expected"), ('{"text": "x"}', ":1: expected"), ('{"key": "a", "text": "x"}\n{"key": "a", "text": "y"}', ":2: a second, other")],
)
def test_bad_files_of_answers_name_the_line(tmp_path: Path, lines: str, expected: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(lines)
    with pytest.raises(DataError, match=expected):
        ImportedGenerator.load(ImportedGeneratorConfig(file=file, name="x"))
    with pytest.raises(DataError, match="no such file"):
        ImportedGenerator.load(ImportedGeneratorConfig(file=tmp_path / "none.jsonl", name="x"))
