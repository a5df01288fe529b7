"""Options compared by likelihood: equal to one plain forward pass an option, whatever else is in the batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.errors import ConfigError
from recsys.generation.cache import CachedGenerator, GenerationCache
from recsys.generation.formats import UnusableAnswerError
from recsys.generation.likelihood import LikelihoodRanker, LikelihoodRankerConfig, option_scores
from recsys.generation.prompt import Prompt
from tests.unit.generation.conftest import ids_of, random_model

OPTIONS = ("a", "bcd", "bee", "zebra")
PROMPTS = [Prompt("x" * length, "You sort.") for length in (1, 9, 30, 4)]


def ranker_of(tokenizer: Any, **options: Any) -> LikelihoodRanker:
    config = LikelihoodRankerConfig(model="tiny", options=OPTIONS, dtype="float32", **options)
    return LikelihoodRanker(config, "tiny", random_model(), tokenizer)


def slowly(ranker: LikelihoodRanker, tokenizer: Any, prompt: Prompt, opening: str = "") -> list[float]:
    begins = [*ranker._chat.encode([prompt])[0], *ids_of(opening, tokenizer)]
    found = []
    for option in OPTIONS:
        ids = ids_of(option, tokenizer)
        logits = ranker._model(torch.tensor([[*begins, *ids]])).logits[0].log_softmax(-1)
        found.append(sum(float(logits[len(begins) - 1 + place, token]) for place, token in enumerate(ids)))
    return found


@pytest.mark.parametrize("opening", ["", "Label: "])
def test_scores_equal_one_plain_pass_an_option(tokenizer: Any, opening: str) -> None:
    ranker = ranker_of(tokenizer, opening=opening)
    found = [option_scores(answer.text, len(OPTIONS)) for answer in ranker.generate(PROMPTS)]
    expected = [slowly(ranker, tokenizer, prompt, opening) for prompt in PROMPTS]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=1e-3)


def test_the_batch_does_not_matter_and_answers_keep_their_places(tokenizer: Any) -> None:
    seen: list[int] = []
    together = ranker_of(tokenizer).generate(PROMPTS, on_done=lambda number, _: seen.append(number))
    alone = ranker_of(tokenizer, batch_tokens=1).generate(PROMPTS)
    assert sorted(seen) == [0, 1, 2, 3]
    for one, other in zip(together, alone, strict=True):
        assert option_scores(one.text, 4) == pytest.approx(option_scores(other.text, 4), abs=1e-3)


def test_a_prompt_beyond_the_positions_is_an_error_of_its_own(tokenizer: Any) -> None:
    answers = ranker_of(tokenizer).generate([Prompt("x" * 600), PROMPTS[0]])
    assert [answer.finish for answer in answers] == ["error", "stop"]


def test_answers_go_through_the_cache(tokenizer: Any, tmp_path: Path) -> None:
    ranker = ranker_of(tokenizer)
    first = CachedGenerator(GenerationCache(tmp_path, "tiny"), lambda: ranker).generate(PROMPTS)
    again = CachedGenerator(GenerationCache(tmp_path, "tiny"), lambda: pytest.fail("asked again")).generate(PROMPTS)
    assert [one.text for one in first] == [one.text for one in again]


@pytest.mark.parametrize("text", ["", "[1, 2]", "[1, 2, 3, NaN]", '["a", 1, 2, 3]', "Comedy", json.dumps([1.0] * 5)])
def test_what_is_not_so_many_numbers_is_refused(text: str) -> None:
    with pytest.raises(UnusableAnswerError):
        option_scores(text, 4)


def test_bad_configs_are_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="all different"):
        LikelihoodRankerConfig.parse({"model": "tiny", "options": ["a", "a"]})
    with pytest.raises(ConfigError, match="full attention"):
        LikelihoodRanker(LikelihoodRankerConfig(model="tiny", options=OPTIONS), "tiny", random_model(window=8), tokenizer)
