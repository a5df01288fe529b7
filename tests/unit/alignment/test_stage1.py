"""Stage 1: its losses against a slow reference, a planted alignment, what is frozen, and the mistakes of the published code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.alignment.aligned import Aligned
from recsys.alignment.config import MatchingConfig
from recsys.alignment.examples import Examples
from recsys.alignment.frozen import FrozenBackbone
from recsys.alignment.matching import MatchingNetwork
from recsys.alignment.stage1 import fit_alignment
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import ArtifactError, ConfigError, DataError, SpaceMismatchError
from recsys.evaluation.evaluate import evaluate
from recsys.models.lightgcn import LightGCNConfig, fit_lightgcn
from recsys.training.config import TrainingConfig
from recsys.types import Backbone, Queries, Scorer
from tests.unit.alignment.planted import COLD, ITEMS, FakeBackbone, Planted, planted, with_rows

CONFIG = MatchingConfig(dim=12, text_hidden=16, training=TrainingConfig(epochs=30, patience=99, batch_size=32, learning_rate=1e-2, betas=(0.9, 0.999)))


def fit(problem: Planted, config: MatchingConfig = CONFIG, **more: object) -> Aligned:
    steps = iter(range(10**6))
    arguments = {"seed": 0, "validate": lambda scorer: float(next(steps))} | more
    return fit_alignment(config, problem.split, FrozenBackbone(problem.backbone), problem.texts, **arguments).aligned


@pytest.fixture(scope="module")
def problem() -> Planted:
    return planted()


@pytest.fixture(scope="module")
def aligned(problem: Planted) -> Aligned:
    return fit(problem)


def test_a_planted_alignment_is_recovered_for_items_without_interactions(problem: Planted, aligned: Aligned) -> None:
    cold = slice(ITEMS - COLD, ITEMS)
    # The recommendation loss stretches the vectors until its probabilities are right: without it they are the recommender's own.
    plain = fit(problem, CONFIG.model_copy(update={"recommend_weight": 0.0}))
    error = np.square(plain.items()[cold] - problem.truth[cold]).mean() / np.square(problem.truth[cold]).mean()
    assert error < 0.1, "text says what the recommender's vectors of items it never saw would be"
    found = evaluate(aligned, problem.split.cold, ks=(10,), split=problem.split)
    # Two of twelve cold items are of the user's theme; all its warm ones are masked or right.
    assert found.mean("recall@10") > 0.8
    backbone: Backbone = aligned
    assert isinstance(aligned, Scorer) and backbone.items().shape == problem.truth.shape
    assert not problem.backbone.scorable_items()[cold].any() and aligned.scorable_items().all()


def test_the_ablations_of_the_paper_lose_what_they_leave_out(problem: Planted, aligned: Aligned) -> None:
    def cold_recall(found: Aligned) -> float:
        return evaluate(found, problem.split.cold, ks=(10,), split=problem.split).mean("recall@10")

    assert cold_recall(fit(problem, CONFIG.model_copy(update={"match_weight": 0.0}))) < 0.6 < 0.8 < cold_recall(aligned)
    frozen_text = fit(problem, CONFIG.model_copy(update={"text_head": "none", "training": TrainingConfig(epochs=1)}))
    assert frozen_text.network.text_head.state_dict() == {}
    with pytest.raises(ConfigError, match="nothing to learn"):
        MatchingConfig.parse({"match_weight": 0, "item_weight": 0, "text_weight": 0, "recommend_weight": 0})


def test_warm_items_may_keep_the_scores_of_the_recommender(problem: Planted) -> None:
    found = fit(problem, CONFIG.model_copy(update={"warm_items": "own", "training": TrainingConfig(epochs=1)}))
    warm = problem.backbone.scorable_items()
    np.testing.assert_array_equal(found.items()[warm], problem.backbone.items()[warm])
    assert not np.allclose(found.items()[~warm], problem.backbone.items()[~warm])


def test_every_item_may_be_ranked_as_if_it_were_new(problem: Planted, aligned: Aligned) -> None:
    queries, cold = problem.split.cold.queries(), np.arange(ITEMS - COLD, ITEMS)
    np.testing.assert_allclose(aligned.all_new().score(queries, cold), aligned.score(queries, cold), atol=1e-4)
    assert not np.allclose(aligned.all_new().score(queries, np.arange(9)), aligned.score(queries, np.arange(9)), atol=1e-2)


def test_losses_and_gradients_equal_a_slow_reference() -> None:
    """User by user, item by item, dimension by dimension."""
    torch.manual_seed(0)
    config = CONFIG.model_copy(update={"item_weight": 0.3, "text_weight": 0.2})
    network = MatchingNetwork(config, 5, 7, 1.7, 0.4).double()
    torch.nn.init.normal_(network.text_head.narrow.weight)
    states, items, texts = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 5), (3, 3, 5), (3, 3, 7)))
    has_text = torch.tensor([[True, True, False], [False, True, True], [True, True, True]])
    total = network.losses(states, items, texts, has_text).total(config)
    trained = list(network.parameters())
    fast = torch.autograd.grad(total, trained)

    match, item, text, recommend = [], [], [], []
    for user in range(3):
        negatives = []
        for place in range(3):
            scaled = items[user, place] / 1.7
            e = network.item_encoder.weight @ scaled + network.item_encoder.bias
            rebuilt = network.item_decoder.weight @ e + network.item_decoder.bias
            item.append(sum((scaled[d] - rebuilt[d]) ** 2 for d in range(5)) / 5)
            score = sum(states[user, d] * rebuilt[d] * 1.7 for d in range(5))
            if place == 0:
                recommend.append(-torch.log(torch.sigmoid(score)))
            else:
                negatives.append(-torch.log(1 - torch.sigmoid(score)))
            if has_text[user, place]:
                z = texts[user, place] / 0.4
                q_in = network.text_head(z)
                q = network.text_encoder.weight @ q_in + network.text_encoder.bias
                back = network.text_decoder.weight @ q + network.text_decoder.bias
                match.append(sum((e[d] - q[d]) ** 2 for d in range(12)) / 12)
                text.append(sum((q_in.detach()[d] - back[d]) ** 2 for d in range(7)) / 7)
        recommend.append(sum(negatives) / len(negatives))
    slow_total = sum(match) / len(match) + 0.3 * sum(item) / len(item) + 0.2 * sum(text) / len(text) + sum(recommend) / 3
    torch.testing.assert_close(total, slow_total, atol=1e-5, rtol=1e-5)
    for one, other in zip(fast, torch.autograd.grad(slow_total, trained), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_the_recommendation_loss_takes_a_dot_product_not_a_mean() -> None:
    """With vectors twice as long the same scores need half the entries: a mean over the dimensions would not see it so."""
    config = CONFIG.model_copy(update={"dim": 4})
    network = MatchingNetwork(config, 4, 3, 1.0, 1.0)
    with torch.no_grad():
        for layer in (network.item_encoder, network.item_decoder):
            layer.weight.copy_(torch.eye(4))
            layer.bias.zero_()
    items = torch.tensor([[[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]])
    losses = network.losses(torch.ones(1, 4), items, torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool))
    assert losses.recommend.item() == pytest.approx(float(np.log1p(np.exp(-4.0)) + np.log(2.0)), abs=1e-6)
    assert losses.match.item() == losses.text.item() == losses.item.item() == 0.0


def test_the_backbone_stays_as_it_was_and_one_with_dropout_is_refused(problem: Planted, tmp_path: Path) -> None:
    queries = Queries(np.array([0, 1]), (np.array([0, 6]), np.array([1])))
    before = problem.backbone.items().copy(), problem.backbone.represent(queries)
    fit(problem, CONFIG.model_copy(update={"training": TrainingConfig(epochs=2)}))
    np.testing.assert_array_equal(problem.backbone.items(), before[0])
    np.testing.assert_array_equal(problem.backbone.represent(queries), before[1])
    with pytest.raises(ConfigError, match="not frozen"):
        FrozenBackbone(FakeBackbone(problem.backbone.items(), problem.backbone.scorable_items(), noise=0.1))
    moving = FakeBackbone(problem.backbone.items().copy(), problem.backbone.scorable_items())

    def moved(scorer: Scorer) -> float:
        moving._items[0] += 1.0
        return 0.0

    with pytest.raises(ConfigError, match="not frozen"):
        fit(replace(problem, backbone=moving), CONFIG.model_copy(update={"training": TrainingConfig(epochs=1)}), validate=moved)


def test_the_joint_table_has_the_collaborative_side_of_warm_items_and_the_text_side_of_cold_ones(problem: Planted, aligned: Aligned) -> None:
    table = aligned.table(problem.split.items)
    warm = np.arange(ITEMS) < ITEMS - COLD
    np.testing.assert_array_equal(table.values[warm], aligned.joint("collaborative")[warm])
    np.testing.assert_array_equal(table.values[~warm], aligned.joint("text")[~warm])
    assert table.space.split_hash == "planted" and table.space_id != aligned.table(problem.split.items, "text").space_id
    other = fit(problem, CONFIG.model_copy(update={"training": TrainingConfig(epochs=1)}))
    assert other.table(problem.split.items).space_id != table.space_id, "another alignment is another space"


def test_files_hold_the_alignment_and_refuse_what_it_was_not_fitted_on(problem: Planted, aligned: Aligned, tmp_path: Path) -> None:
    aligned.save(tmp_path)
    frozen, items = FrozenBackbone(problem.backbone), problem.split.items
    again = Aligned.load(tmp_path, frozen, problem.texts, items)
    np.testing.assert_allclose(again.items(), aligned.items(), atol=1e-6)
    assert again.digest == aligned.digest
    with pytest.raises(SpaceMismatchError, match="backbone"):
        Aligned.load(tmp_path, FrozenBackbone(FakeBackbone(problem.truth, problem.backbone.scorable_items())), problem.texts, items)
    with pytest.raises(SpaceMismatchError, match="text space"):
        space = problem.texts.space.model_copy(update={"model": "other"})
        Aligned.load(tmp_path, frozen, EmbeddingTable(problem.texts.values, items, space), items)
    with pytest.raises(SpaceMismatchError, match="vocabulary"):
        Aligned.load(tmp_path, frozen, problem.texts, Vocabulary(reversed(items.ids)))
    (tmp_path / "matching.json").unlink()
    with pytest.raises(ArtifactError, match="missing"):
        Aligned.load(tmp_path, frozen, problem.texts, items)


def test_examples_begin_after_the_first_item_and_negatives_are_strangers(problem: Planted) -> None:
    split = with_rows(problem, [[0], [], [1, 2, 3], [4, 5]])
    last, every = Examples.of_split(split, "last"), Examples.of_split(split, "all")
    assert last.user_nums.tolist() == [2, 3] and last.targets.tolist() == [3, 5], "a user with one item is no example, and item 0 is nobody's"
    assert [history.tolist() for history in every.histories] == [[1], [1, 2], [4]] and every.targets.tolist() == [2, 3, 5]
    assert Examples.of_split(split, "all", np.array([3])).targets.tolist() == [5]
    candidates = np.arange(8)
    drawn = every.negatives(50, candidates, seed=0, epoch=1)
    assert drawn.shape == (3, 50) and not set(drawn[0].tolist()) & {1, 2, 3} and not set(drawn[2].tolist()) & {4, 5}
    assert set(drawn[0].tolist()) == {0, 4, 5, 6, 7}
    np.testing.assert_array_equal(drawn, every.negatives(50, candidates, seed=0, epoch=1))
    assert (drawn != every.negatives(50, candidates, seed=0, epoch=2)).any()
    assert set(every.negatives(3, np.array([1, 2, 3, 4]), seed=0, epoch=1)[:2].ravel().tolist()) == {4}
    with pytest.raises(DataError, match="no negative"):
        every.negatives(1, np.array([1, 2, 3]), seed=0, epoch=1)
    with pytest.raises(DataError, match="two training interactions"):
        Examples.of_split(with_rows(problem, [[0], [1]]), "last")


def test_a_killed_training_resumes_to_the_same_vectors(problem: Planted, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def killed(epoch: int, *_: object) -> None:
        if epoch == 2:
            raise KilledError

    def size(scorer: Scorer) -> float:
        return float(np.abs(scorer.items()).sum())

    short = CONFIG.model_copy(update={"training": TrainingConfig(epochs=4)})
    whole = fit(problem, short, validate=size)
    with pytest.raises(KilledError):
        fit(problem, short, checkpoint=tmp_path, progress=killed, checkpoint_seconds=0.0, validate=size)
    np.testing.assert_array_equal(fit(problem, short, checkpoint=tmp_path, checkpoint_seconds=0.0, validate=size).joint(), whole.joint())
    with pytest.raises(ArtifactError, match="another training"):
        fit(problem, short, checkpoint=tmp_path, seed=1)


def test_a_graph_model_is_asked_for_histories_so_that_it_does_not_know_the_target(problem: Planted) -> None:
    graph = fit_lightgcn(LightGCNConfig(dim=8, training=TrainingConfig(epochs=2, batch_size=256)), problem.split, seed=0, validate=lambda s: 0.0).scorer
    history = problem.split.train[3][:2]
    by_history = FrozenBackbone(graph).states(np.array([3]), [history])
    np.testing.assert_allclose(by_history, graph.represent(Queries.of_history(history)), atol=1e-6)
    assert not np.allclose(by_history, FrozenBackbone(graph, "id").states(np.array([3]), [history]))
    found = fit(replace(problem, backbone=graph), CONFIG.model_copy(update={"training": TrainingConfig(epochs=1)}))
    assert np.isfinite(found.score(problem.split.cold.queries(), np.arange(ITEMS))).all()
