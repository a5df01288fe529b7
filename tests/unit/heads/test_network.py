"""The network beside a slow reference (values and gradients), with one signal beside the plain model, and what is frozen."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.data.sequences import Sequences
from recsys.errors import ConfigError
from recsys.heads import fitting
from recsys.heads.averaging import WithAverage
from recsys.heads.config import FusionConfig
from recsys.heads.fusion import FusedRanker, fit_ranker
from recsys.heads.network import FusionNetwork, Gate, ItemTower
from recsys.training.batches import PAD, next_item_batches
from recsys.types import Queries
from tests.unit.heads.planted import Table, World, world

TINY = {
    "encoder": {"dim": 6, "blocks": 1, "max_length": 8, "dropout": 0.0},
    "training": {"epochs": 3, "batch_size": 64, "learning_rate": 0.01},
    "projection": False,
    "id_dropout": 0.0,
}
FORMS = {
    "additive": {"gate": False, "transform": "unit"},
    "gated": {"projection": True},
    "presence": {"gate_presence": True},
    "mlp": {"adapter": "mlp", "hidden": 5, "adapter_std": 0.1},
    "null space": {"adapter": "frozen", "transform": "whiten", "components": 2, "id_axes": 4, "gate": False},
    "free": {"head": "free", "each": {"image": {"adapter": "mlp", "hidden": 3}}},
    "text alone": {"use_ids": False, "gate": False},
    "cosine": {"temperature": 0.2, "projection": True},
    "cosine, free": {"temperature": 0.5, "head": "free"},
    "smoothed": {"smoothing": 0.3, "gate": False},
}


@pytest.fixture(scope="module")
def planted() -> World:
    return world(users=20)


def tables(planted: World) -> dict[str, Table]:
    """Every fifth item has no picture."""
    images = np.random.default_rng(5).normal(size=(len(planted.cluster), 4))
    images[::5] = 0
    return {"text": planted.text, "image": Table(images)}


def inputs_of(config: FusionConfig, planted: World, with_tables: bool = True) -> fitting._Inputs:
    raw = {name: table.values for name, table in tables(planted).items()} if with_tables else {}
    return fitting._inputs(config, planted.split, raw)


def network_of(config: FusionConfig, planted: World, inputs: fitting._Inputs) -> FusionNetwork:
    torch.manual_seed(3)
    network = FusionNetwork(config, len(planted.cluster), {name: z.shape[1] for name, z in inputs.signals.items()})
    for gate in (tower.gate for tower in network.towers):
        if gate is not None:
            torch.nn.init.normal_(gate.out.weight)
    return network


def slow_item_vector(tower: ItemTower, config: FusionConfig, inputs: fitting._Inputs, item: int) -> Tensor:
    """One item at a time, as the docstring of the network has it."""
    d = config.encoder.dim
    shares, names = [], ["id", *tower.names]
    for column, name in enumerate(names):
        if name == "id":
            own = torch.zeros(d, dtype=torch.float64)
            if tower.ids is not None:
                k = config.id_axes or d
                own = torch.cat([torch.zeros(d - k, dtype=torch.float64), tower.ids.weight[item]])
        else:
            z, adapter = inputs.signals[name][item].double(), tower.maps[name]
            match config.of(name).adapter:
                case "linear":
                    own = adapter.weight @ z
                case "mlp":
                    hidden = adapter.widen.weight @ z + adapter.widen.bias
                    own = adapter.narrow.weight @ (hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))) + adapter.narrow.bias
                case "frozen":
                    own = torch.cat([z, torch.zeros(d - len(z), dtype=torch.float64)])
        if bool(inputs.present[item, column]):
            shares.append((column, own))
    if tower.gate is None:
        return torch.stack([share for _, share in shares]).sum(0)
    present = inputs.present[item].double()
    seen = present if config.gate_presence else present[:1]
    features = torch.cat([torch.log1p(inputs.counts[item].double())[None] / 5, seen])
    logits = tower.gate.out.weight @ torch.tanh(tower.gate.hidden.weight @ features + tower.gate.hidden.bias) + tower.gate.out.bias
    exponentials = {column: torch.exp(logits[column]) for column, _ in shares}
    weight = {column: len(shares) * e / sum(exponentials.values()) for column, e in exponentials.items()}
    return torch.stack([weight[column] * share for column, share in shares]).sum(0)


def slow_loss(network: FusionNetwork, config: FusionConfig, inputs: fitting._Inputs, planted: World) -> Tensor:
    """All positions of one batch, logits written out."""
    warm = np.flatnonzero(planted.split.item_counts())
    read = {item: slow_item_vector(network, config, inputs, item) for item in warm.tolist()}
    head = network if network.head is None else network.head
    ranked = torch.stack([slow_item_vector(head, config, inputs, item) for item in warm.tolist()])
    if network.projection is not None:
        ranked = ranked @ network.projection.weight.T
    if config.temperature is not None:
        ranked = torch.stack([vector / (config.temperature * vector.square().sum().sqrt()) for vector in ranked])
    losses = []
    for row in planted.split.train:
        states = network.encoder(torch.stack([read[i] for i in row[:-1].tolist()][-8:])[None], torch.ones(1, min(8, len(row) - 1), dtype=torch.bool))[0]
        if config.temperature is not None:
            states = states / states.square().sum(dim=1, keepdim=True).sqrt()
        for state, target in zip(states, np.searchsorted(warm, row[1:][-8:]).tolist(), strict=True):
            wanted = torch.full((len(warm),), config.smoothing / len(warm), dtype=torch.float64)
            wanted[target] += 1 - config.smoothing
            losses.append(-(wanted * F.log_softmax(ranked @ state, dim=0)).sum())
    return torch.stack(losses).mean()


def shortened(planted: World) -> World:
    return replace(planted, split=replace(planted.split, train=Sequences.of_rows([row[:8] for row in planted.split.train])))


@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradients_equal_a_slow_reference(form: str, planted: World) -> None:
    config = FusionConfig.parse({**TINY, **FORMS[form]})
    # Rows no longer than the window: each is one piece.
    short = shortened(planted)
    inputs = inputs_of(config, short)
    network = network_of(config, short, inputs)
    reference = copy.deepcopy(network).double()
    expected = slow_loss(reference, config, inputs, short)
    expected.backward()

    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    network.train()
    loss = fitting._run_epoch(network, config, short.split, inputs, torch.optim.SGD(network.parameters(), lr=1.0), 0, 1)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for name, value in network.named_parameters():
        wanted = dict(reference.named_parameters())[name].grad
        wanted = torch.zeros_like(value) if wanted is None else wanted
        np.testing.assert_allclose((before[name] - value.detach()).numpy(), wanted.numpy(), atol=2e-6, err_msg=name)


def test_the_reference_sees_one_batch_of_one_piece_a_user(planted: World) -> None:
    split = shortened(planted).split
    (parts,) = next_item_batches(split.train, max_length=8, batch_size=64, seed=0, epoch=1, sort=False)
    assert sum(int((part.targets != PAD).sum()) for part in parts) == sum(len(row) - 1 for row in split.train)


def trained(network: FusionNetwork, config: FusionConfig, planted: World, inputs: fitting._Inputs) -> list[float]:
    """Three epochs with dropout in the encoder, by one stream of random numbers."""
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    torch.manual_seed(9)
    return [fitting._run_epoch(network, config, planted.split, inputs, optimiser, 0, epoch) for epoch in (1, 2, 3)]


def test_with_signals_that_no_item_has_it_is_the_plain_model(planted: World) -> None:
    config = FusionConfig.parse({**TINY, "encoder": {**TINY["encoder"], "dropout": 0.2}, "gate": True})  # type: ignore[dict-item]
    plain_inputs = inputs_of(config, planted, with_tables=False)
    plain = network_of(config, planted, plain_inputs)
    fused = FusionNetwork(config, len(planted.cluster), {"text": 4})
    fused.load_state_dict(plain.state_dict(), strict=False)
    nothing = torch.zeros(len(planted.cluster), 1, dtype=torch.bool)
    absent = fitting._Inputs(
        {"text": torch.zeros(len(planted.cluster), 4)}, torch.cat([plain_inputs.present, nothing], dim=1), plain_inputs.counts,
        plain_inputs.candidates, {}, plain_inputs.scorable, "d",
    )  # fmt: skip
    assert trained(fused, config, planted, absent) == pytest.approx(trained(plain, config, planted, plain_inputs), rel=1e-6)
    np.testing.assert_allclose(fused.ids.weight.detach()[plain_inputs.candidates], plain.ids.weight.detach()[plain_inputs.candidates], atol=1e-5)


def test_with_one_hot_vectors_alone_it_is_the_plain_model(planted: World) -> None:
    """A linear adapter of one-hot vectors is a table of IDs."""
    plain_config = FusionConfig.parse({**TINY, "encoder": {**TINY["encoder"], "dropout": 0.2}})  # type: ignore[dict-item]
    config = plain_config.model_copy(update={"use_ids": False, "gate": False, "transform": "none"})
    n = len(planted.cluster)
    plain_inputs = inputs_of(plain_config, planted, with_tables=False)
    plain = network_of(plain_config, planted, plain_inputs)
    one_hot = fitting._inputs(config, planted.split, {"id_of_another_name": np.eye(n, dtype=np.float32)})
    fused = FusionNetwork(config, n, {"id_of_another_name": n})
    fused.load_state_dict({k: v for k, v in plain.state_dict().items() if k != "ids.weight"}, strict=False)
    with torch.no_grad():
        fused.maps["id_of_another_name"].weight.copy_(plain.ids.weight.T)
    assert trained(fused, config, planted, one_hot) == pytest.approx(trained(plain, plain_config, planted, plain_inputs), rel=1e-5)
    warm = plain_inputs.candidates
    np.testing.assert_allclose(fused.maps["id_of_another_name"].weight.detach().T[warm], plain.ids.weight.detach()[warm], atol=1e-4)


def fitted(planted: World, chosen: dict[str, Table], **options: object) -> FusedRanker:
    return fit_ranker(FusionConfig.parse({**TINY, **options}), planted.split, chosen, seed=0, validate=lambda s: float(np.abs(s.items()).sum())).ranker


def test_what_is_frozen_stays(planted: World) -> None:
    before = planted.text.values.copy()
    whitened = {"adapter": "frozen", "transform": "whiten", "components": 2, "gate": False}
    ranker = fitted(planted, {"text": planted.text}, id_axes=4, **whitened)
    np.testing.assert_array_equal(planted.text.values, before)
    ids, text = ranker._components[:, 0], ranker._components[:, 1]
    np.testing.assert_array_equal(text[:, :2], ranker._transforms["text"](planted.text.values))
    assert (text[:, 2:] == 0).all(), "the language lives in its axes alone"
    assert (ids[:, :2] == 0).all() and (ids[planted.popular, 2:] != 0).any(), "and the IDs in theirs"
    assert not [name for name, _ in ranker._network.named_parameters() if name.startswith("maps")]
    # Residual: IDs in all axes, beginning at the language itself.
    residual = fitted(planted, {"text": planted.text}, id_init="zero", **whitened)
    np.testing.assert_array_equal(residual._components[:, 1, :2], text[:, :2])
    assert residual._components[planted.popular, 0].abs().max() > 0


def test_ids_begin_as_the_leading_components_of_a_signal(planted: World) -> None:
    config = FusionConfig.parse({**TINY, "id_init": "text", "id_std": 0.05, "adapter": "none"})
    network = FusionNetwork(config, len(planted.cluster), {})
    warm = planted.split.item_counts() > 0
    fitting._initialise_ids(network, planted.text.values, config, warm)
    begun = network.ids.weight.detach().numpy()[warm]
    np.testing.assert_allclose(begun.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(begun.T @ begun / len(begun), 0.05**2 * np.eye(6), atol=1e-6)
    # The signal has no share afterwards: the model is an ID model that cannot rank what it never saw.
    ranker = fitted(planted, {"text": planted.text}, id_init="text", adapter="none")
    assert ranker.signals == ("id",) and not ranker.scorable_items()[planted.cold].any()


def test_a_cosine_ranks_by_direction_alone(planted: World) -> None:
    ranker = fitted(planted, {"text": planted.text}, temperature=0.1)
    np.testing.assert_allclose(np.linalg.norm(ranker.items(), axis=1), 10, rtol=1e-5)
    queries, every = Queries.of_history(planted.popular[:3]), np.arange(len(planted.cluster))
    np.testing.assert_allclose(sum(ranker.shares(queries, every).values()), ranker.score(queries, every), atol=1e-4)


def test_the_mean_of_the_weights_is_what_is_kept(planted: World, tmp_path: Path) -> None:
    config = FusionConfig.parse(TINY)
    network = network_of(config, planted, inputs_of(config, planted))
    both = WithAverage(network, 0.5)
    values = []
    for step in range(4):
        with torch.no_grad():
            network.ids.weight.fill_(float(step))
        both.update()
        values.append(both.average.ids.weight[0, 0].item())
    # Decays 1/10, 2/11, 3/12, 4/13, all below one half; the first begins at the initial weight.
    expected = [0.1 * network_of(config, planted, inputs_of(config, planted)).ids.weight[0, 0].item()]
    for step, decay in ((1, 2 / 11), (2, 3 / 12), (3, 4 / 13)):
        expected.append(decay * expected[-1] + (1 - decay) * step)
    assert values == pytest.approx(expected, rel=1e-5)
    assert not any(parameter.requires_grad for parameter in both.average.parameters())

    class KilledError(Exception):
        pass

    def kill(done: int, total: int, numbers: dict[str, float]) -> None:
        raise KilledError

    averaged = {**TINY, "average": 0.9}
    plain, undisturbed = fitted(planted, {"text": planted.text}), fitted(planted, {"text": planted.text}, average=0.9)
    assert np.abs(plain.items() - undisturbed.items()).max() > 1e-4

    def resumed(**more: object) -> FusedRanker:
        chosen = {"seed": 0, "validate": lambda s: float(np.abs(s.items()).sum()), "checkpoint": tmp_path, "checkpoint_seconds": 0.0}
        return fit_ranker(FusionConfig.parse(averaged), planted.split, {"text": planted.text}, **chosen, **more).ranker  # type: ignore[arg-type]

    with pytest.raises(KilledError):
        resumed(progress=kill)
    np.testing.assert_array_equal(resumed().items(), undisturbed.items())


def test_penalties_are_of_their_own_parameters(planted: World) -> None:
    config = FusionConfig.parse({**TINY, "id_decay": 0.5, "adapter_decay": 0.25, "head": "free"})
    network = network_of(config, planted, inputs_of(config, planted))
    groups = fitting._groups(network, config)
    assert groups is not None
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    named = {name: decays[id(parameter)] for name, parameter in network.named_parameters()}
    assert {name for name, decay in named.items() if decay == 0.5} == {"ids.weight", "head.ids.weight"}
    assert {name for name, decay in named.items() if decay == 0.25} == {f"{head}maps.{s}.weight" for head in ("", "head.") for s in ("text", "image")}
    assert fitting._groups(network, FusionConfig.parse(TINY)) is None
    longer = {"epochs": 40, "batch_size": 64, "learning_rate": 0.01, "patience": 99}
    shrunk, plain = (fitted(planted, {"text": planted.text}, training=longer, id_decay=decay) for decay in (0.1, 0.0))
    assert shrunk._components[planted.rare, 0].norm() < 0.7 * plain._components[planted.rare, 0].norm()


def test_dropout_leaves_no_item_with_nothing(planted: World) -> None:
    config = FusionConfig.parse({**TINY, "id_dropout": 0.5, "signal_dropout": 0.6})
    inputs = inputs_of(config, planted)
    torch.manual_seed(0)
    ids_left, signals_left = [], []
    for _ in range(40):
        present, counts = fitting._dropped(config, inputs)
        assert (present <= inputs.present).all() and present.any(dim=1).equal(inputs.present.any(dim=1))
        assert (counts[~present[:, 0]] == 0).all() and (counts[present[:, 0]] == inputs.counts[present[:, 0]]).all()
        ids_left.append(present[inputs.candidates, 0].float().mean().item())
        both = present[inputs.candidates][inputs.present[inputs.candidates].all(dim=1)]
        signals_left.append(both[both[:, 0]][:, 1:].float().mean().item())
    assert np.mean(ids_left) == pytest.approx(0.5, abs=0.03) and np.mean(signals_left) == pytest.approx(0.4, abs=0.03)


def test_the_gate_knows_what_is_missing() -> None:
    torch.manual_seed(0)
    blind, seeing = Gate(3), Gate(3, presence=True)
    for gate in (blind, seeing):
        torch.nn.init.normal_(gate.out.weight)
    present = torch.tensor([[True, True, True], [True, True, False], [True, False, False], [False, False, False]])
    counts = torch.full((4,), 7.0)

    def odds(gate: Gate) -> list[float]:
        weights = gate(present, counts)
        assert (weights[~present] == 0).all()
        np.testing.assert_allclose(weights.sum(dim=1).detach(), present.sum(dim=1), rtol=1e-6)
        return (weights[:2, 0] / weights[:2, 1]).tolist()

    assert odds(blind)[0] == pytest.approx(odds(blind)[1], rel=1e-5), "without, the weight of what is missing goes to the others alike"
    assert odds(seeing)[0] != pytest.approx(odds(seeing)[1], rel=1e-2)


@pytest.mark.parametrize("form", FORMS)
def test_round_trip_and_new_items_of_each_form(form: str, planted: World, tmp_path: Path) -> None:
    ranker = fitted(planted, tables(planted), **FORMS[form])  # type: ignore[arg-type]
    ranker.save(tmp_path)
    loaded = FusedRanker.load(tmp_path)
    some = {name: table.values[planted.cold] for name, table in tables(planted).items()}
    for one in (ranker, loaded):
        grown = one.with_items(some)
        np.testing.assert_allclose(grown.items()[len(planted.cluster) :], ranker.items()[planted.cold], atol=1e-5)
        new = grown.represent(Queries.of_history(len(planted.cluster) + np.arange(2)))
        np.testing.assert_allclose(new, one.represent(Queries.of_history(planted.cold[:2])), atol=1e-5)


def test_what_a_user_can_get_wrong(planted: World) -> None:
    text = {"text": planted.text}
    with pytest.raises(ConfigError, match="projection"):
        FusionConfig.parse({**TINY, "head": "free", "projection": True})
    with pytest.raises(ConfigError, match="smoothing is of the softmax"):
        FusionConfig.parse({**TINY, "smoothing": 0.1, "loss": {"kind": "gbce"}})
    with pytest.raises(ConfigError, match="components: 6 or fewer"):
        fitted(planted, text, adapter="frozen", transform="unit")
    with pytest.raises(ConfigError, match="options of 'image', but the signals are: text"):
        fitted(planted, text, each={"image": {"transform": "unit"}})
    with pytest.raises(ConfigError, match="leaves nothing to rank items by"):
        fitted(planted, {}, use_ids=False)
    with pytest.raises(ConfigError, match="id_axes 7 of item vectors of width 6"):
        FusionConfig.parse({**TINY, "id_axes": 7})
    with pytest.raises(ConfigError, match="unit"):
        FusionConfig.parse({**TINY, "each": {"text": {"transform": "units"}}})
