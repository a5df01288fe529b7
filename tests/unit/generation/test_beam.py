"""Beam search against the likelihood of every title, one by one; the trie; titles as tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.embeddings.first_layers import load_decoder
from recsys.generation.beam import BeamSearch, TitleHead
from recsys.generation.titles import Titles
from recsys.generation.trie import TitleTrie
from recsys.testing.language_models import tiny_model

TEXTS = ["ab", "abc", "abd", "b", "ab", "cab", "ca", "bb"]
"""Prefixes of each other, and one title twice (items 0 and 4)."""
POPULARITY = np.array([1, 5, 0, 2, 3, 3, 1, 0])


def made(folder: Path, family: str = "llama"):
    model, tokenizer = load_decoder(tiny_model(folder, family), 2)
    titles = Titles(TEXTS, tokenizer, 8)
    embeddings = model.get_input_embeddings().weight[torch.from_numpy(titles.vocabulary)]
    head = TitleHead(embeddings, lambda states: states @ embeddings.T)
    trie = TitleTrie([titles.places(ids) for ids in titles.tokens], titles.places([titles.end])[0], POPULARITY)
    return model.base_model, head, trie, titles


def brute_force(body, head: TitleHead, titles: Titles, prompt: Tensor) -> list[float]:
    """Log-probability of each item's title and its end after one prompt float (L, d): a full pass each, no memory."""
    found = []
    for ids in titles.tokens:
        places = titles.places([*ids, titles.end])
        whole = torch.cat([prompt, head.embeddings[places]])[None]
        states = body(inputs_embeds=whole, use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1]
        gains = torch.log_softmax(head.logits(states).double(), dim=-1)
        found.append(float(gains[torch.arange(len(places)), places].sum()))
    return found


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_with_as_many_beams_as_titles_it_equals_scoring_every_title(tmp_path: Path, family: str) -> None:
    body, head, trie, titles = made(tmp_path, family)
    torch.manual_seed(0)
    lengths = (6, 3, 1)
    prompts = [torch.randn(length, 32) for length in lengths]
    vectors, valid = torch.randn(3, 6, 32), torch.zeros(3, 6, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        vectors[row, 6 - len(prompt) :], valid[row, 6 - len(prompt) :] = prompt, True
    with torch.no_grad():
        found = BeamSearch(body, head, trie, width=len(TEXTS)).run(vectors, valid)
        for row, prompt in enumerate(prompts):
            expected = brute_force(body, head, titles, prompt)
            by_leaf = {leaf: expected[items[0]] for leaf, items in enumerate(trie.leaves)}
            assert [leaf for leaf, _ in found[row]] == sorted(by_leaf, key=lambda leaf: -by_leaf[leaf])
            np.testing.assert_allclose([score for _, score in found[row]], sorted(by_leaf.values(), reverse=True), atol=1e-4)


def known_answer(probabilities: dict[int, list[float]]):
    """A "model" without memory of the past: the distribution of the next token follows from the last one alone."""

    class Markov(torch.nn.Module):
        def __init__(self, config) -> None:
            super().__init__()
            self.config = config

        def forward(self, inputs_embeds: Tensor, **_: object):
            return type("Out", (), {"last_hidden_state": inputs_embeds})()

    from transformers import AutoConfig

    table = torch.tensor([probabilities[token] for token in sorted(probabilities)]).log()
    return Markov(AutoConfig.for_model("llama", num_hidden_layers=1)), TitleHead(torch.eye(len(table)), lambda states: states @ table)


def test_a_known_answer_where_the_greedy_beginning_is_wrong() -> None:
    """Tokens: 0 the end, 1, 2, 3. After the prompt (token 0): 1 with .6, 2 with .4. Behind 1 everything is unlikely, behind 2 the end is certain."""
    body, head = known_answer({0: [1e-9, 0.6, 0.4 - 2e-9, 1e-9], 1: [0.3, 0.3, 0.2, 0.2], 2: [1.0 - 3e-9, 1e-9, 1e-9, 1e-9], 3: [1.0 - 3e-9, 1e-9, 1e-9, 1e-9]})
    trie = TitleTrie([[1], [2], [1, 3], [1, 2]], 0, np.zeros(4, dtype=np.int64))
    prompt, valid = torch.eye(4)[:1][None], torch.ones(1, 1, dtype=torch.bool)
    (greedy,), (wide,) = (BeamSearch(body, head, trie, width=width).run(prompt, valid) for width in (1, 4))
    assert trie.leaves[greedy[0][0]] == [0], "one beam goes by the first token and never sees title 2"
    assert [trie.leaves[leaf] for leaf, _ in wide] == [[1], [0], [2], [3]]
    np.testing.assert_allclose([score for _, score in wide], np.log([0.4, 0.18, 0.12, 0.12]), atol=1e-6)
    (without,) = BeamSearch(body, head, trie, width=4).run(prompt, valid, [{wide[0][0]}])
    assert [leaf for leaf, _ in without] == [leaf for leaf, _ in wide[1:]]


def test_items_of_one_title_stand_in_the_stated_order(tmp_path: Path) -> None:
    *_, trie, titles = made(tmp_path)
    shared = [items for items in trie.leaves if len(items) > 1]
    assert shared == [[4, 0]], "the one with more interactions first"
    assert sorted(item for items in trie.leaves for item in items) == list(range(len(TEXTS)))
    tied = TitleTrie([[5], [5], [5]], 0, np.zeros(3, dtype=np.int64))
    assert tied.leaves == [[0, 1, 2]]
    owners, edges = trie.expanded(np.array([0, 0]))
    assert owners.tolist() == [0] * (len(edges) // 2) + [1] * (len(edges) // 2)
    assert sorted(set(trie.tokens[edges].tolist())) == sorted({titles.places([ids[0]])[0] for ids in titles.tokens})


def test_titles_hold_no_special_token_and_no_quotation_mark(tmp_path: Path) -> None:
    _, tokenizer = load_decoder(tiny_model(tmp_path, "llama"), 1)
    titles = Titles(['He said "<|im_end|>"\nnow</s>', "", "x" * 50], tokenizer, 20)
    special = set(tokenizer.all_special_ids)
    assert all(ids and len(ids) <= 20 and not special & set(ids) and titles.end not in ids for ids in titles.tokens)
    assert tokenizer.decode(titles.tokens[0]).startswith("He said '‹|im_end")
    assert titles.texts[1] == "1", "an item without a title is its number, not like every other without"
    assert titles.vocabulary.tolist() == sorted(set(titles.vocabulary.tolist())) and titles.end in titles.vocabulary
    assert titles.vocabulary[titles.places(titles.tokens[2])].tolist() == titles.tokens[2]
