"""Lite-LLM4Rec on tiny language models: a planted cycle, a slow reference, padding, cold items, files, and the ways it is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recsys.data.sequences import Sequences
from recsys.data.split import Cases, Split
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.first_layers import load_decoder
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.generation.titles import Titles
from recsys.heads.generative import GenerativeLLM
from recsys.heads.lite_config import LiteConfig
from recsys.heads.lite_fitting import LiteFit, batch_loss, fit_lite
from recsys.heads.lite_llm import LiteLLM
from recsys.heads.lite_network import LiteNetwork
from recsys.testing.language_models import tiny_model
from recsys.training.batches import PAD, next_item_batches
from recsys.types import Backbone, Queries, Scorer

N = 8
TITLES = ["Alien", "Brazil", "Casino", "Dune", "Eraser", "Fargo", "Gattaca", "Heat", "Dune"]
"""Items 3 and 8 share one; item 8 has no interaction."""


def cycle() -> Split:
    """Item i is always followed by i + 1 modulo N; item N exists and has no interaction."""
    rows = [(np.arange(7) + start) % N for start in range(N)] * 2
    none = Cases.of_rows([])
    users = Vocabulary(str(u) for u in range(len(rows)))
    return Split("leave_last_out", users, Vocabulary(str(i) for i in range(N + 1)), Sequences.of_rows(rows), none, none, none, np.zeros(N + 1, dtype=bool), "d")


def table(split: Split) -> EmbeddingTable:
    """Random vectors; the cold item has that of item 3, nearly."""
    values = np.random.default_rng(0).normal(size=(N + 1, 20)).astype(np.float32)
    values[N] = values[3] + 0.01
    space = EmbeddingSpace(
        model="m", revision="r", tokenizer="t", template="", max_length=8, layer=-1, pooling="mean", attention="causal", normalise=True, dtype="float32", dim=20
    )
    return EmbeddingTable(values, split.items, space)


def config(model: str, **more: object) -> LiteConfig:
    training = {"epochs": 30, "patience": 40, "batch_size": 8, "learning_rate": 0.02}
    return LiteConfig.parse({"model": model, "layers": 2, "dropout": 0.0, "max_length": 6, "llm_learning_rate": 3e-3, "training": training} | more)


def fit(model: str, checkpoint: Path | None = None, **more: object) -> LiteFit:
    steps = iter(range(10**6))
    split = cycle()
    return fit_lite(config(model, **more), split, table=table(split), titles=TITLES, seed=0, checkpoint=checkpoint, validate=lambda s: float(next(steps)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="module")
def queries() -> Queries:
    return Queries(np.full(N, -1), tuple((np.arange(1 + s % 5) + s) % N for s in range(N)))


def next_items(queries: Queries) -> list[int]:
    return [int(history[-1] + 1) % N for history in queries.histories]


@pytest.mark.parametrize("more", [{}, {"head": "tied", "dim": 16}, {"reader": "text"}, {"tuning": {"kind": "lora", "rank": 4}}, {"start": "random"}])
def test_learns_a_cycle(model: str, queries: Queries, more: dict[str, object]) -> None:
    result = fit(model, **more)
    scorer = result.scorer
    assert isinstance(scorer, LiteLLM) and isinstance(scorer, Scorer) and isinstance(scorer.represent, type(scorer.items)) and scorer.n_items == N + 1
    backbone: Backbone = scorer
    scores = scorer.score(queries, np.arange(N))
    assert scores.argmax(1).tolist() == next_items(queries)
    np.testing.assert_allclose(scores, backbone.represent(queries) @ backbone.items()[:N].T, atol=1e-5)
    assert scorer.scorable_items()[N] == (more.get("head") == "tied"), "only the tied head reaches an item without interactions"
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]


def test_the_tied_head_ranks_a_cold_item_by_the_vector_of_a_warm_one(model: str) -> None:
    scorer = fit(model, head="tied").scorer
    assert isinstance(scorer, LiteLLM)
    scores = scorer.score(Queries.of_history(np.array([0, 1, 2])), np.arange(N + 1))[0]
    assert set(np.argsort(-scores)[:2]) == {3, N}
    raw = table(cycle()).values
    np.testing.assert_allclose(scorer.vectors_of_new(raw[[N, 3]]), scorer.items()[[N, 3]], atol=1e-5)
    with pytest.raises(DataError, match="expected"):
        scorer.vectors_of_new(raw[:, :3])
    with pytest.raises(DataError, match="free head"):
        fit(model, training={"epochs": 1}).scorer.vectors_of_new(raw)


@pytest.mark.parametrize("head", ["free", "tied"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_loss_and_its_gradients_equal_a_slow_reference(tmp_path: Path, family: str, head: str) -> None:
    """One history at a time, without padding; one position at a time, by torch's own cross-entropy over the whole row of scores."""
    name = tiny_model(tmp_path, family)
    options, split = config(name, head=head, dim=12), cycle()
    network = made(options).eval()
    parts = next(next_item_batches(split.train, max_length=4, batch_size=5, seed=0, epoch=1))
    candidates, position = torch.arange(N), torch.cat([torch.arange(N), torch.tensor([-1])])
    loss = batch_loss(network, options, parts, candidates, position)
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    fast = torch.autograd.grad(loss, list(trained.values()))

    losses = []
    inputs = network.map(network.vectors)
    assert network.head is not None and network.out is not None
    for part in parts:
        for row, targets in zip(part.inputs, part.targets, strict=True):
            history, wanted = row[row != PAD], targets[targets != PAD]
            for length in range(1, len(history) + 1):
                body = network.body(inputs_embeds=inputs[torch.from_numpy(history[:length])][None], use_cache=False).last_hidden_state[0, -1]
                state = network.out(body)
                if head == "free":
                    scores = network.head.columns @ state + network.head.bias[:, 0]
                else:
                    scores = (inputs @ network.head.weight.T) @ state
                losses.append(F.cross_entropy(scores[:N], torch.tensor(int(wanted[length - 1]))))
    slow_loss = torch.stack(losses).mean()
    torch.testing.assert_close(loss, slow_loss, atol=1e-5, rtol=1e-5)
    slow = torch.autograd.grad(slow_loss, list(trained.values()))
    for name, one, other in zip(trained, fast, slow, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


def made(options: LiteConfig) -> LiteNetwork:
    language_model, tokenizer = load_decoder(options.model, options.layers)
    torch.manual_seed(0)
    prepared = torch.nn.functional.normalize(torch.tensor(table(cycle()).values), dim=1)
    return LiteNetwork(options, language_model, N + 1, prepared, Titles(TITLES, tokenizer, 4) if options.needs_titles else None)


@pytest.mark.parametrize("more", [{}, {"reader": "text", "title_tokens": 4}])
def test_padding_moves_no_state(model: str, more: dict[str, object]) -> None:
    network = made(config(model, **more)).eval()
    inputs = network.inputs()
    with torch.no_grad():
        alone = network.states(torch.tensor([[2, 5, 1]]), inputs)
        padded = network.states(torch.tensor([[PAD, PAD, PAD, 2, 5, 1], [4, 4, 0, 3, 6, 7]]), inputs)
        assert padded.shape[0] == 9
        torch.testing.assert_close(padded[:3], alone, atol=1e-5, rtol=1e-4)
        shorter = network.states(torch.tensor([[2, 5]]), inputs)
        torch.testing.assert_close(alone[:2], shorter, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(alone[2], network.states(torch.tensor([[5, 2, 1]]), inputs)[2], atol=1e-3), "the order counts"


def test_answers_do_not_depend_on_the_neighbours_and_an_empty_history_gets_the_average(model: str, queries: Queries) -> None:
    scorer = fit(model, training={"epochs": 1}).scorer
    assert isinstance(scorer, LiteLLM)
    together = scorer.represent(queries)
    np.testing.assert_allclose(together, np.concatenate([scorer.represent(queries.slice(i, i + 1)) for i in range(N)]), atol=1e-5)
    empty = scorer.represent(Queries.of_history(np.zeros(0, dtype=np.int64)))[0]
    np.testing.assert_allclose(empty, scorer.represent(Queries(np.arange(16), list(cycle().train))).mean(axis=0), atol=1e-4)
    with pytest.raises(DataError, match="0..8"):
        scorer.represent(Queries.of_history(np.array([N + 1])))


def test_what_is_frozen_stays_and_what_is_trained_moves(model: str) -> None:
    original = load_decoder(model, 2)[0].base_model.state_dict()
    for tuning, moved in ((None, False), ({"kind": "lora", "rank": 2}, False), ({"kind": "layers"}, True)):
        network = fit(model, tuning=tuning, training={"epochs": 2, "batch_size": 8}).scorer._network
        weights = {name.replace(".base_layer", ""): value for name, value in network.body.state_dict().items() if name.startswith("layers")}
        same = [torch.equal(weights[name], value) for name, value in original.items() if name.startswith("layers")]
        assert all(same) != moved and (not moved or not any(same))
        assert any("lora" in name for name in weights) == (tuning is not None and tuning["kind"] == "lora")


@pytest.mark.parametrize("more", [{}, {"head": "tied", "tuning": {"kind": "lora", "rank": 2}, "input_map": {"transform": "whiten", "components": 4}}])
def test_files_hold_all_that_is_needed(model: str, tmp_path: Path, queries: Queries, more: dict[str, object]) -> None:
    scorer = fit(model, training={"epochs": 2}, **more).scorer
    scorer.save(tmp_path)
    again = LiteLLM.load(tmp_path)
    np.testing.assert_allclose(again.score(queries, np.arange(N + 1)), scorer.score(queries, np.arange(N + 1)), atol=1e-6)
    assert (again.space_id, again.item_digest) == (scorer.space_id, cycle().items.digest) and again.config == scorer.config
    np.testing.assert_array_equal(again.scorable_items(), scorer.scorable_items())
    (tmp_path / "lite_llm.safetensors").unlink()
    with pytest.raises(ArtifactError, match="missing"):
        LiteLLM.load(tmp_path)


def test_a_killed_training_resumes_to_the_same_weights(model: str, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def killed(epoch: int, *_: object) -> None:
        if epoch == 2:
            raise KilledError

    options, split = config(model, training={"epochs": 3, "batch_size": 8}, dropout=0.1), cycle()
    arguments = {"table": table(split), "seed": 0, "validate": lambda s: 0.0, "checkpoint_seconds": 0.0}
    whole = fit_lite(options, split, **arguments).scorer
    with pytest.raises(KilledError):
        fit_lite(options, split, checkpoint=tmp_path, progress=killed, **arguments)
    resumed = fit_lite(options, split, checkpoint=tmp_path, **arguments).scorer
    np.testing.assert_array_equal(whole.items(), resumed.items())
    with pytest.raises(ArtifactError, match="another training"):
        fit_lite(options, split, checkpoint=tmp_path, **{**arguments, "seed": 1})


@pytest.mark.parametrize("reader", ["vectors", "text"])
def test_the_generative_way_names_the_next_title(model: str, queries: Queries, reader: str, tmp_path: Path) -> None:
    result = fit(model, head="generative", reader=reader, beams=3, training={"epochs": 40, "patience": 99, "batch_size": 4, "learning_rate": 0.02})
    scorer = result.scorer
    assert isinstance(scorer, GenerativeLLM)
    lists = scorer.generate(queries)
    assert lists.shape == (N, 3)
    wanted = [item if item != 3 else (3, N) for item in next_items(queries)]
    # Items 3 and 8 have one title: the one with interactions comes first.
    assert [int(found) for found in lists[:, 0]] == [item if isinstance(item, int) else item[0] for item in wanted]
    dune = lists[next_items(queries).index(3)]
    assert dune[:2].tolist() == [3, N]
    assert all(not set(found) & set(history) for found, history in zip(lists.tolist(), [h.tolist() for h in queries.histories], strict=True))
    np.testing.assert_array_equal(scorer.score(queries, np.arange(N + 1)).argmax(1), lists[:, 0])
    scorer.save(tmp_path)
    np.testing.assert_array_equal(GenerativeLLM.load(tmp_path).generate(queries), lists)


@pytest.mark.parametrize("reader", ["vectors", "text"])
def test_the_generative_loss_equals_the_likelihood_of_titles_one_by_one(model: str, reader: str) -> None:
    options = config(model, head="generative", reader=reader, title_tokens=4)
    network = made(options).eval()
    rows, targets = torch.tensor([[PAD, 2], [0, 5]]), torch.tensor([[PAD, 3], [5, 1]])
    if reader == "vectors":
        # A position of each row is drawn: with one entry there is one to draw.
        rows, targets = rows[:1, 1:], targets[:1, 1:]
    inputs = network.inputs()
    states, places = network.title_states(rows, targets, inputs)
    head = network.title_head()
    with torch.no_grad():
        found = torch.log_softmax(head.logits(states), dim=1)[torch.arange(len(places)), places].tolist()
    _, tokenizer = load_decoder(model, 2)
    titles = Titles(TITLES, tokenizer, 4)
    expected: list[float] = []
    for row, wanted in zip(rows.tolist(), targets.tolist(), strict=True):
        history = [item for item in row if item != PAD][:1]
        for target in [item for item in wanted if item != PAD]:
            if reader == "vectors":
                prompt = inputs[history]
            else:
                prompt = head.embeddings[[place for item in history for place in titles.places([*titles.tokens[item], titles.end])]]
            title = titles.places([*titles.tokens[target], titles.end])
            for length in range(len(title)):
                body = network.body(inputs_embeds=torch.cat([prompt, head.embeddings[title[:length]]])[None], use_cache=False).last_hidden_state[0, -1]
                expected.append(torch.log_softmax(head.logits(body), dim=0)[title[length]].item())
            history.append(target)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_options_that_do_not_fit_are_refused(model: str) -> None:
    with pytest.raises(ConfigError, match="generative head"):
        config(model, head="generative", dim=4)
    with pytest.raises(ConfigError, match="leaves nothing to read"):
        config(model, input_map={"adapter": "none"})
    split = cycle()
    with pytest.raises(ConfigError, match="need a table"):
        fit_lite(config(model), split, seed=0, validate=lambda s: 0.0)
    with pytest.raises(ConfigError, match="need the titles of all 9"):
        fit_lite(config(model, reader="text"), split, titles=TITLES[:2], seed=0, validate=lambda s: 0.0)
    with pytest.raises(ConfigError, match="positions"):
        fit_lite(config(model, max_length=1000), split, table=table(split), seed=0, validate=lambda s: 0.0)
