"""Stage 2: prompts, the loss against a slow reference, what is frozen, what padding and length do, and a planted alignment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from recsys.alignment.a_llmrec import ALLMRec, joint_of, network_of, prompts_of
from recsys.alignment.aligned import Aligned
from recsys.alignment.config import MatchingConfig, ProjectionConfig, PromptConfig
from recsys.alignment.frozen import FrozenBackbone
from recsys.alignment.frozen_llm import FrozenLLM
from recsys.alignment.language import LanguageConfig, Speaker
from recsys.alignment.prompts import USER, Prompts, left_padded, slot_of
from recsys.alignment.stage1 import fit_alignment
from recsys.alignment.stage2 import fit_projection, one_a_user
from recsys.errors import ArtifactError, ConfigError, DataError, SpaceMismatchError
from recsys.evaluation.evaluate import evaluate
from recsys.testing.language_models import byte_tokenizer, tiny_model
from recsys.training.config import TrainingConfig
from recsys.types import Backbone, Queries, Scorer
from tests.unit.alignment.planted import COLD, ITEMS, THEMES, Planted, planted

PROMPT = PromptConfig(user=" u.", history=" had", request=" past.", candidates=" of:", closing=" Next:", history_items=3, title_tokens=6)
TITLES = [f"t{item % THEMES} {item}" for item in range(ITEMS)]
TRAINING = TrainingConfig(epochs=2, patience=99, batch_size=8, learning_rate=3e-3, betas=(0.9, 0.999))


@pytest.fixture(scope="module")
def problem() -> Planted:
    return planted()


@pytest.fixture(scope="module")
def aligned(problem: Planted) -> Aligned:
    config = MatchingConfig(
        dim=12, text_hidden=16, recommend_weight=0.1, warm_items="own", training=TrainingConfig(epochs=20, batch_size=32, learning_rate=1e-2)
    )
    return fit_alignment(config, problem.split, FrozenBackbone(problem.backbone), problem.texts, seed=0, validate=lambda _: 0.0).aligned


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("llama"), "llama", chat=True)


@pytest.fixture(scope="module")
def config(llama: str) -> ProjectionConfig:
    return ProjectionConfig(model=llama, layers=2, prompt=PROMPT, catalogue_dim=8, training=TRAINING)


@pytest.fixture(scope="module")
def llm(config: ProjectionConfig) -> FrozenLLM:
    return FrozenLLM.load(config)


def fit(problem: Planted, aligned: Aligned, config: ProjectionConfig, **more: Any) -> ALLMRec:
    steps = iter(range(10**6))
    arguments: dict[str, Any] = {"seed": 0, "validate": lambda _: float(next(steps))} | more
    return fit_projection(config, problem.split, aligned, TITLES, **arguments).model


def untrained(config: ProjectionConfig, aligned: Aligned, llm: FrozenLLM, *, moved: bool = True) -> ALLMRec:
    """moved: no part is at the zero that it begins with."""
    torch.manual_seed(0)
    network = network_of(config, aligned, llm)
    if moved:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return ALLMRec(network, config, aligned, llm, prompts_of(config, llm, TITLES), joint_of(config, aligned, 0))


def test_a_prompt_says_each_part_once_and_vectors_stand_behind_what_they_mean() -> None:
    tokenizer = byte_tokenizer()
    prompts = Prompts(PROMPT, tokenizer, ['a "x"', "bb", "c<s>"], user_vector=True)

    def spelled(row: list[int]) -> str:
        return "".join("<U>" if token == USER else f"<{-2 - token}>" if token < USER else tokenizer.decode([token]) for token in row)

    assert spelled(prompts.recommend(np.array([0, 1]))) == """<U> u. had "a 'x'"<0>, "bb"<1> past. Next: \""""
    assert spelled(prompts.answer(1)) == 'bb"'
    assert spelled(prompts.recommend(np.zeros(0, dtype=np.int64), [1, 0])) == """<U> u. had nothing past. of: "bb"<1>, "a 'x'"<0> Next: \""""
    bare = Prompts(PROMPT, tokenizer, ["a", "bb", "c"], user_vector=False, item_vectors=False)
    assert spelled(bare.recommend(np.array([0, 1, 2, 0]))) == ' had "bb", "c", "a" past. Next: "'
    assert prompts.digest != bare.digest != Prompts(PROMPT.model_copy(update={"request": " so far."}), tokenizer, ["a", "bb", "c"]).digest
    special = set(tokenizer.all_special_ids)
    assert not special & {token for token in prompts.recommend(np.array([2])) if token >= 0}, "a title cannot spell a special token"
    longest = Prompts(PROMPT, tokenizer, ["abcdef"] * 3)
    assert len(longest.recommend(np.array([0, 1, 2])) + longest.answer(0)) <= longest.longest


def test_vectors_reach_the_places_of_their_users_and_items_and_no_others(config: ProjectionConfig, aligned: Aligned, llm: FrozenLLM) -> None:
    model = untrained(config, aligned, llm)
    prompts = [model.prompts.recommend(np.array([3, 5])), model.prompts.recommend(np.array([7]))]
    rows, valid = left_padded(prompts)
    users = torch.randn(2, aligned.backbone.dim)
    vectors = model.reader.embedded(rows, users, model.joint)
    for row, prompt in enumerate(prompts):
        start = rows.shape[1] - len(prompt)
        assert not valid[row, :start].any() and valid[row, start:].all()
        for place, token in enumerate(prompt):
            wanted = (
                model.network.users(users[row : row + 1])[0]
                if token == USER
                else model.network.items(model.joint[-2 - token][None])[0]
                if token < USER
                else llm.embedded(torch.tensor(token))
            )
            torch.testing.assert_close(vectors[row, start + place], wanted, atol=1e-6, rtol=1e-5)
    assert prompts[0].count(USER) == 1 and [token for token in prompts[0] if token < USER] == [slot_of(3), slot_of(5)]


def test_loss_and_gradients_equal_a_slow_reference_over_the_title_alone(llama: str, config: ProjectionConfig, aligned: Aligned, llm: FrozenLLM) -> None:
    """One example at a time, without padding, through the whole model of transformers; token by token."""
    model = untrained(config.model_copy(update={"readout": "own"}), aligned, llm)
    network = model.network.requires_grad_(True)
    prompts = [model.prompts.recommend(np.array(history)) for history in ([3, 5, 9], [7])]
    answers = [model.prompts.answer(11), model.prompts.answer(2)[:-3] + model.prompts.answer(2)[-1:]]
    users = torch.randn(2, aligned.backbone.dim)
    last, before, tokens = model.reader.read(prompts, answers, users, model.joint)
    assert tokens.tolist() == [*answers[0], *answers[1]], "nothing of the prompt is a target"
    fast = model.reader.title_loss(before, tokens) + model.network.ranking_states(last).square().sum()
    trained = [parameter for parameter in network.parameters() if parameter is not network.head.weight]  # type: ignore[union-attr]
    fast_gradients = torch.autograd.grad(fast, trained)

    whole: Any = AutoModelForCausalLM.from_pretrained(llama).eval()
    whole.model.layers = whole.model.layers[:2]
    lasts = []
    whole.model.layers[1].register_forward_hook(lambda _, __, out: lasts.append(out if isinstance(out, torch.Tensor) else out[0]))
    gains = []
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        table = whole.get_input_embeddings().weight
        inputs = [
            network.user(users[row]) * llm.scale if token == USER else network.item(model.joint[-2 - token]) * llm.scale if token < USER else table[token]
            for token in [*prompt, *answer]
        ]
        logits = whole(inputs_embeds=torch.stack(inputs)[None]).logits[0]
        for depth, token in enumerate(answer):
            gains.append(torch.log(torch.softmax(logits[len(prompt) + depth - 1], dim=0)[token]))
    ranked = sum(network.ranking_states(states[0, len(prompt) - 1]).square().sum() for states, prompt in zip(lasts, prompts, strict=True))
    slow = -sum(gains) / len(gains) + ranked
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    for one, other in zip(fast_gradients, torch.autograd.grad(slow, trained), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3)
    network.requires_grad_(False)


def test_titles_side_by_side_score_as_each_alone_and_by_the_token(config: ProjectionConfig, aligned: Aligned, llm: FrozenLLM) -> None:
    model = untrained(config, aligned, llm)
    queries = Queries(np.array([0, 1]), (np.array([3, 5, 9]), np.array([7])))
    candidates = np.array([[1, 30, 4], [59, 2, 7]])
    found = model.title_scores(queries, candidates)
    users = torch.from_numpy(aligned.represent(queries))
    with torch.inference_mode():
        for row in range(2):
            for column in range(3):
                prompt, answer = model.prompts.recommend(queries.histories[row]), model.prompts.answer(int(candidates[row, column]))
                _, before, tokens = model.reader.read([prompt], [answer], users[row : row + 1], model.joint)
                assert found[row, column] == pytest.approx(-model.reader.title_loss(before, tokens).item(), abs=1e-5)
    assert model.title_loss(queries, candidates[:, 0]) == pytest.approx(-found[:, 0].mean())
    # A uniform model finds every title equally likely, however long.
    flat = untrained(config.model_copy(update={"readout": "lens"}), aligned, llm)
    with torch.no_grad():
        assert flat.network.lens is not None
        flat.network.lens.weight.copy_(-torch.eye(llm.width))
        flat.network.lens.bias.zero_()
    even = flat.title_scores(queries, candidates)
    np.testing.assert_allclose(even, -np.log(len(llm.outputs)), atol=1e-6)
    assert len({len(model.prompts.answer(item)) for item in candidates.ravel().tolist()}) > 1


def test_neither_padding_nor_neighbours_move_anything(config: ProjectionConfig, aligned: Aligned, llm: FrozenLLM) -> None:
    model = untrained(config, aligned, llm)
    short, long = np.array([7]), np.array([3, 5, 9])
    alone = model.represent(Queries.of_history(short))
    beside = model.represent(Queries(np.array([-1, -1]), (long, short)))
    np.testing.assert_allclose(beside[1], alone[0], atol=1e-5)
    one = model.title_scores(Queries.of_history(short), np.array([[1, 2]]))
    two = model.title_scores(Queries(np.array([-1, -1]), (long, short)), np.array([[8, 9], [1, 2]]))
    np.testing.assert_allclose(two[1], one[0], atol=1e-6)
    np.testing.assert_allclose(model.title_scores(Queries.of_history(short), np.array([[2, 50, 1]]))[0, [2, 0]], one[0], atol=1e-6)


def test_the_language_model_is_frozen_and_one_that_moves_is_found_out(problem: Planted, aligned: Aligned, config: ProjectionConfig) -> None:
    llm = FrozenLLM.load(config)
    ids = torch.arange(5)[None]
    valid = torch.ones_like(ids, dtype=torch.bool)
    before = {name: value.clone() for name, value in llm.body.named_parameters()}
    answer = llm.states(llm.embedded(ids), valid)
    network = fit(problem, aligned, config, llm=llm).network
    torch.testing.assert_close(llm.states(llm.embedded(ids), valid), answer, atol=0, rtol=0)
    assert not llm.body.training and all(torch.equal(value, before[name]) for name, value in llm.body.named_parameters())
    assert not {id(p) for p in network.parameters()} & {id(p) for p in llm.body.parameters()}, "no optimiser ever holds them"
    np.testing.assert_array_equal(aligned.backbone.items, problem.backbone.items())

    def nudge(_: ALLMRec) -> float:
        with torch.no_grad():
            next(iter(llm.body.parameters())).add_(0.01)
        return 0.0

    one_epoch = config.model_copy(update={"training": TRAINING.model_copy(update={"epochs": 1})})
    with pytest.raises(ConfigError, match="not frozen"):
        fit(problem, aligned, one_epoch, llm=llm, validate=nudge)
    waking = FrozenLLM.load(config)
    waking.body.train()
    with pytest.raises(ConfigError, match="not frozen"):
        waking.require_unchanged()


def test_what_is_begun_with_is_stage_1_and_a_planted_alignment_is_found(problem: Planted, aligned: Aligned, config: ProjectionConfig, llm: FrozenLLM) -> None:
    queries, everything = problem.split.cold.queries(), np.arange(ITEMS)
    begun = untrained(config, aligned, llm, moved=False)
    np.testing.assert_allclose(begun.score(queries, everything), aligned.score(queries, everything), atol=1e-5)
    scorer: Scorer = begun
    backbone: Backbone = begun
    assert isinstance(scorer, Scorer) and backbone.items().shape[0] == ITEMS
    # By the language model alone: what it is told in vectors must be enough to rank new items, which stand by their text.
    alone = config.model_copy(update={"on_backbone": False, "title_weight": 1.0, "training": TRAINING.model_copy(update={"epochs": 12})})
    model = fit(problem, aligned, alone, llm=llm)
    found = evaluate(model, problem.split.cold, ks=(10,), split=problem.split).mean("recall@10")
    assert found > 0.6, "of 60 items chance finds a sixth"
    # Titles begin with the theme: the vectors tell which is likely.
    offered = np.stack([np.array([target, (target + 1) % ITEMS, (target + 2) % ITEMS]) for target in problem.split.cold.targets])
    titles = model.title_scores(queries, offered)
    assert (titles.argmax(axis=1) == 0).mean() > 0.5, "of three chance finds a third"


def test_new_items_stand_by_their_text_side_and_warm_ones_by_the_recommender(config: ProjectionConfig, aligned: Aligned, llm: FrozenLLM) -> None:
    model = untrained(config, aligned, llm)
    cold = np.arange(ITEMS) >= ITEMS - COLD
    np.testing.assert_array_equal(model.joint.numpy()[cold], aligned.joint("text")[cold])
    np.testing.assert_array_equal(model.joint.numpy()[~cold], aligned.joint("collaborative")[~cold])
    with torch.inference_mode():
        wanted = model.network.ranking_items(model.network.items(torch.from_numpy(aligned.joint("text")[cold].copy()))).numpy()
    np.testing.assert_allclose(model.items()[cold][:, aligned.backbone.dim :], wanted, atol=1e-6)
    assert model.scorable_items().all() and not aligned.backbone.scorable[cold].any()
    random = joint_of(config.model_copy(update={"item_vectors": "random"}), aligned, 0)
    assert random.std() == pytest.approx(aligned.joint().std(), rel=0.3) and abs(np.corrcoef(random.ravel(), aligned.joint().ravel())[0, 1]) < 0.15


@pytest.mark.parametrize(
    "changes",
    [
        {"item_vectors": "none"},
        {"user_vector": False},
        {"item_vectors": "random"},
        {"catalogue_weight": 0.0, "candidates": 4},
        {"title_weight": 0.0, "positions": "last", "text_share": 0.0},
        {"readout": "own", "dtype": "bfloat16"},
    ],
)
def test_ablations_and_options_train(problem: Planted, aligned: Aligned, config: ProjectionConfig, changes: dict[str, Any]) -> None:
    model = fit(problem, aligned, config.model_copy(update={**changes, "training": TRAINING.model_copy(update={"epochs": 1})}))
    queries = problem.split.cold.queries().slice(0, 3)
    assert np.isfinite(model.title_scores(queries, np.array([[1, 2, 3, 4]] * 3))).all()
    if "candidates" in changes:
        with pytest.raises(ConfigError, match="catalogue_weight"):
            model.score(queries, np.arange(3))
        # The order in which candidates are given says nothing.
        one, other = (model.title_scores(queries.slice(0, 1), np.array([row])) for row in ([1, 2, 3, 4], [4, 3, 2, 1]))
        np.testing.assert_allclose(one[0], other[0, ::-1], atol=1e-6)
    else:
        assert np.isfinite(model.score(queries, np.arange(ITEMS))).all()


def test_a_killed_training_resumes_to_the_same_weights(problem: Planted, aligned: Aligned, config: ProjectionConfig, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def killed(epoch: int, *_: object) -> None:
        if epoch == 1:
            raise KilledError

    validate: Callable[[ALLMRec], float] = lambda model: float(np.abs(model.items()).sum())  # noqa: E731
    whole = fit(problem, aligned, config, validate=validate)
    with pytest.raises(KilledError):
        fit(problem, aligned, config, validate=validate, checkpoint=tmp_path, progress=killed, checkpoint_seconds=0.0)
    again = fit(problem, aligned, config, validate=validate, checkpoint=tmp_path, checkpoint_seconds=0.0)
    assert again.digest == whole.digest
    with pytest.raises(ArtifactError, match="another training"):
        fit(problem, aligned, config, validate=validate, checkpoint=tmp_path, seed=1)


def test_files_hold_the_model_and_refuse_what_it_was_not_fitted_on(config: ProjectionConfig, aligned: Aligned, llm: FrozenLLM, tmp_path: Path) -> None:
    model = untrained(config, aligned, llm)
    model.save(tmp_path)
    again = ALLMRec.load(tmp_path, aligned, TITLES)
    queries = Queries.of_history(np.array([3, 5]))
    np.testing.assert_allclose(again.score(queries, np.arange(ITEMS)), model.score(queries, np.arange(ITEMS)), atol=1e-5)
    assert again.digest == model.digest
    with pytest.raises(SpaceMismatchError, match="titles"):
        ALLMRec.load(tmp_path, aligned, TITLES[::-1], llm=llm)
    with pytest.raises(SpaceMismatchError, match="language model"):
        ALLMRec.load(tmp_path, aligned, TITLES, llm=FrozenLLM.load(config.model_copy(update={"start": "random"}), seed=1))
    (tmp_path / "projection.json").unlink()
    with pytest.raises(ArtifactError, match="missing"):
        ALLMRec.load(tmp_path, aligned, TITLES, llm=llm)


def test_language_is_greedy_and_sees_the_vectors(config: ProjectionConfig, aligned: Aligned, llm: FrozenLLM) -> None:
    model = untrained(config, aligned, llm)
    speaker = Speaker(model, LanguageConfig(max_new_tokens=6, opening="So"))
    written = speaker.reason(np.array([3, 5]), 9)
    assert written.startswith("So") and written == speaker.reason(np.array([3, 5]), 9)
    # The memory of keys and values changes nothing: token by token from the start.
    history = np.array([3, 5])
    state, prompt = model.state_of(history), speaker._prompt(history, 9, LanguageConfig().reason, "So")
    tokens: list[int] = []
    for _ in range(6):
        last = model.reader.last_states([[*prompt, *tokens]], state, model.joint)
        tokens.append(int(model.reader.logits(last[0]).argmax()))
        if tokens[-1] in speaker._ends:
            tokens.pop()
            break
    assert written == f"So{llm.tokenizer.decode(tokens, skip_special_tokens=True)}".strip()
    scores = speaker.favourite_scores(np.array([3, 5]), ["comedy", "war", "drama"])
    other = untrained(config.model_copy(update={"item_vectors": "random"}), aligned, llm)
    assert scores.shape == (3,) and not np.allclose(scores, Speaker(other, LanguageConfig()).favourite_scores(np.array([3, 5]), ["comedy", "war", "drama"]))
    assert isinstance(speaker.favourite(np.zeros(0, dtype=np.int64)), str)
    with pytest.raises(ConfigError, match="there are: user, history"):
        Speaker(model, LanguageConfig(favourite="{title}")).favourite(np.array([1]))


def test_one_place_of_each_user_is_drawn_and_all_come_in_turn() -> None:
    users = np.array([2, 2, 2, 5, 7, 7])
    assert one_a_user(users, "last", 0, 1).tolist() == [2, 3, 5]
    drawn = np.array([one_a_user(users, "random", 0, epoch) for epoch in range(60)])
    assert [sorted(set(column.tolist())) for column in drawn.T] == [[0, 1, 2], [3], [4, 5]]
    np.testing.assert_array_equal(one_a_user(users, "random", 0, 3), drawn[3])


def test_what_does_not_fit_is_refused(problem: Planted, aligned: Aligned, config: ProjectionConfig, llm: FrozenLLM, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to learn"):
        ProjectionConfig.parse({"title_weight": 0, "catalogue_weight": 0})
    with pytest.raises(ConfigError, match="catalogue_weight: 0"):
        ProjectionConfig.parse({"candidates": 20})
    with pytest.raises(ConfigError, match="positions"):
        prompts_of(config.model_copy(update={"prompt": PROMPT.model_copy(update={"history_items": 90})}), llm, TITLES)
    with pytest.raises(SpaceMismatchError, match="titles"):
        fit_projection(config, problem.split, aligned, TITLES[:-1], seed=0, validate=lambda _: 0.0)
    with pytest.raises(DataError, match="knows 0..59"):
        untrained(config, aligned, llm).represent(Queries.of_history(np.array([60])))
    with pytest.raises(ConfigError, match="full attention"):
        FrozenLLM.load(config.model_copy(update={"model": tiny_model(tmp_path, "mistral", window=4)}))
