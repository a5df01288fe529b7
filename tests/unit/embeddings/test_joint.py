"""NoteLLM-2's parts against hand-made answers and a slow reference; the encoder's identity, batches and round trip."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, normalize

from recsys.artifacts.artifact import Manifest, write_artifact
from recsys.embeddings.adapter import LoraTuning, make_trainable
from recsys.embeddings.configs import IMAGE, TEXT, parse_encoder, reads
from recsys.embeddings.content import Content
from recsys.embeddings.image_config import ImageEncoderConfig
from recsys.embeddings.joint import JointEncoder, JointEncoderConfig
from recsys.embeddings.joint_adapter import KIND, save_joint_adapter
from recsys.embeddings.joint_bridge import Bridge, Connector, GatedFusion, JointModel, Layout
from recsys.embeddings.joint_loss import joint_loss, stacked, unstacked
from recsys.embeddings.layers import UpperHalf
from recsys.embeddings.loading import load_encoder
from recsys.errors import ConfigError, DataError, SpaceMismatchError
from recsys.testing.language_models import DIM, LAYERS, tiny_model
from recsys.testing.vision_models import picture, tiny_vision_model
from recsys.training.grad_cache import backward_in_chunks

IMAGE_DIM = 5
CONTENTS = [
    Content("Heat (1995)", picture(0)),
    Content("Toy Story (1995). Genres: Animation, Comedy.", picture(1)),
    Content("A film without a poster"),
    Content('He said "hello" ' * 40, picture(2, 200, 90)),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("joint")
    return {"text": tiny_model(folder / "llm", "llama"), "image": tiny_vision_model(folder / "clip", "clip"), "other": tiny_vision_model(folder / "vit", "vit")}


def config(models: dict[str, str], **options: Any) -> JointEncoderConfig:
    image = options.pop("image", ImageEncoderConfig(name="picture", model=models["image"]))
    return JointEncoderConfig(**{"name": "joint", "model": models["text"], "image": image, "dtype": "float32"} | options)


# The gate


def gate(weight: float) -> tuple[GatedFusion, Tensor, Tensor]:
    fusion = GatedFusion(IMAGE_DIM, 3)
    with torch.no_grad():
        fusion.gate.weight.fill_(0)
        fusion.gate.weight[:, :3] = weight * torch.eye(3)
    return fusion, torch.tensor([[0.5, 2.0, 7.0]]), torch.ones(1, IMAGE_DIM)


def test_open_gate_gives_the_text_closed_the_picture_half_their_mean() -> None:
    for weight, mix in [(1000.0, 1.0), (-1000.0, 0.0), (0.0, 0.5)]:
        fusion, hidden, features = gate(weight)
        torch.testing.assert_close(fusion(hidden, features), mix * hidden + (1 - mix) * fusion.project(features))


def test_gate_by_hand() -> None:
    """d = 1, c = 1: h = 2, f = 3, W_c = 0.5, W = [0.1, -0.4] -> c = 1.5, z = sigmoid(0.2 - 0.6)."""
    fusion = GatedFusion(1, 1)
    with torch.no_grad():
        fusion.project.weight.fill_(0.5)
        fusion.gate.weight.copy_(torch.tensor([[0.1, -0.4]]))
    z = 1 / (1 + math.exp(0.4))
    assert fusion(torch.tensor([[2.0]]), torch.tensor([[3.0]])).item() == pytest.approx(2 * z + 1.5 * (1 - z))


def test_gate_gradients_equal_a_slow_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    fusion = GatedFusion(IMAGE_DIM, 3).double()
    hidden, features = (torch.randn(4, size, generator=generator, dtype=torch.float64, requires_grad=True) for size in (3, IMAGE_DIM))
    assert torch.autograd.gradcheck(fusion, (hidden, features))


def test_connector_gives_states_of_the_wanted_length() -> None:
    states = Connector(IMAGE_DIM, 8, 3, scale=4.0)(torch.randn(2, IMAGE_DIM))
    assert states.shape == (2, 3, 8)
    torch.testing.assert_close(states.square().mean(-1).sqrt(), torch.full((2, 3), 4.0), atol=1e-4, rtol=1e-4)


# The model


def joint_model(models: dict[str, str], first: int, *, fused: bool = True, between: int = 2) -> tuple[JointModel, Any]:
    from transformers import AutoModel

    llm = AutoModel.from_pretrained(models["text"]).eval().requires_grad_(False)
    torch.manual_seed(1)
    return JointModel(UpperHalf(llm, first), Bridge(IMAGE_DIM, DIM, Layout(3, between, 2), scale=0.5, late_fusion=fused)), llm


def inputs(batch: int = 2, length: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    words = torch.randn(batch, length, DIM, generator=generator)
    seen = torch.ones(batch, length, dtype=torch.bool)
    return words, seen, torch.randn(batch, IMAGE_DIM, generator=generator), torch.ones(batch, dtype=torch.bool)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("first", [0, 1])
def test_equals_a_forward_by_hand(models: dict[str, str], first: int, fused: bool) -> None:
    """Row by row, state by state, through the language model's own layers."""
    model, llm = joint_model(models, first, fused=fused)
    words, seen, images, pictured = inputs()
    seen[1, 7:] = False
    found = model(words, seen, images, pictured)
    bridge = model.bridge
    assert bridge.word is not None and found.visual is not None
    for row in range(2):
        features = layer_norm(images[row : row + 1], (IMAGE_DIM,))
        own = words[row : row + 1, : int(seen[row].sum())]
        states = torch.cat([own[:, :3], bridge.connector(features), own[:, 3:5], bridge.word[None, None], own[:, 5:]], dim=1)
        position = torch.arange(states.shape[1])[None]
        mask = torch.full((states.shape[1],) * 2, -torch.inf).triu(1)[None, None]
        for layer in llm.layers[first:]:
            states = layer(states, attention_mask=mask, position_ids=position, position_embeddings=llm.rotary_emb(states, position))
        states = llm.norm(states)
        for state, ours in ((states[:, -1], found.multimodal[row]), (states[:, 3 + 2 + 2 - 1], found.visual[row])):
            expected = state if bridge.fusion is None else bridge.fusion(state, features)
            torch.testing.assert_close(ours, expected[0], atol=1e-5, rtol=1e-5)


def test_what_each_vector_depends_on(models: dict[str, str]) -> None:
    model, _ = joint_model(models, 0)
    words, seen, images, pictured = inputs()
    with torch.no_grad():
        before = model(words, seen, images, pictured)
        other_text = words.clone()
        other_text[:, 5:] += 1
        text = model(other_text, seen, images, pictured)
        image = model(words, seen, images.flip(1), pictured)
    torch.testing.assert_close(text.visual, before.visual, atol=0, rtol=0)  # it stands before the text
    assert (text.multimodal - before.multimodal).abs().max() > 1e-3
    assert (image.multimodal - before.multimodal).abs().max() > 1e-3
    assert (image.visual - before.visual).abs().max() > 1e-3


def test_without_the_gate_the_picture_still_comes_through_the_words(models: dict[str, str]) -> None:
    model, _ = joint_model(models, 0, fused=False, between=0)
    words, seen, images, pictured = inputs()
    with torch.no_grad():
        before, after = model(words, seen, images, pictured), model(words, seen, images.flip(1), pictured)
    assert before.visual is None and (before.multimodal - after.multimodal).abs().max() > 1e-4


def test_features_of_an_absent_picture_are_not_read(models: dict[str, str]) -> None:
    model, _ = joint_model(models, 0)
    words, seen, images, pictured = inputs()
    pictured[0] = False
    expected = model(words, seen, images, pictured).multimodal
    images[0] = torch.nan
    found = model(words, seen, images, pictured).multimodal
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    found.sum().backward()
    assert model.bridge.absent.grad is not None and float(model.bridge.absent.grad.abs().sum()) > 0
    assert all(parameter.grad is None or bool(torch.isfinite(parameter.grad).all()) for parameter in model.parameters())


def test_the_bridge_alone_gets_gradients(models: dict[str, str]) -> None:
    model, _ = joint_model(models, 1)
    found = model(*inputs())
    assert found.visual is not None
    found.visual.sum().backward(retain_graph=True)
    word = model.bridge.word
    assert word is not None and word.grad is not None and not bool(word.grad.any())  # it stands behind the picture's one word
    found.multimodal.sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)}
    assert trained == {f"bridge.{name}" for name, _ in model.bridge.named_parameters()} - {"bridge.absent"}


# The loss


def slow_loss(vectors: Tensor, pairs: list[tuple[int, int]], together: Tensor, scale: float) -> Tensor:
    """The definition, pair by pair in both directions."""
    terms = []
    for anchor, partner in pairs + [(b, a) for a, b in pairs]:
        others = [row for row in range(len(vectors)) if row == partner or (row != anchor and not together[anchor, row])]
        logits = torch.stack([scale * vectors[anchor] @ vectors[row] for row in others])
        terms.append(torch.logsumexp(logits, 0) - scale * vectors[anchor] @ vectors[partner])
    return torch.stack(terms).mean()


def test_loss_and_gradients_equal_a_slow_reference() -> None:
    generator = torch.Generator().manual_seed(3)
    multimodal, visual = (torch.randn(7, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    pictured = torch.tensor([True, True, False, True, True, True, True])
    pairs = [(0, 1), (2, 3), (4, 5)]
    together = torch.zeros(7, 7, dtype=torch.bool)
    for a, b in [*pairs, (0, 6), (4, 6)]:
        together[a, b] = together[b, a] = True
    anchors, partners = torch.tensor(pairs).T
    m, v = normalize(multimodal, dim=1), normalize(visual, dim=1)
    rows = pictured.nonzero().squeeze(1)
    of_pictures = slow_loss(v[rows], [(0, 1), (3, 4)], together[rows][:, rows], 20.0)  # (2, 3) has one picture only
    expected = 0.9 * slow_loss(m, pairs, together, 20.0) + 0.1 * of_pictures
    found = joint_loss(m, v, pictured, anchors, partners, together, 20.0)
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(found, (multimodal, visual), retain_graph=True)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, (multimodal, visual)))


def test_without_two_pictures_the_loss_is_the_multimodal_one() -> None:
    vectors = normalize(torch.randn(4, 3), dim=1)
    anchors, partners, together = torch.tensor([0, 2]), torch.tensor([1, 3]), torch.zeros(4, 4, dtype=torch.bool)
    alone = joint_loss(vectors, None, torch.ones(4, dtype=torch.bool), anchors, partners, together, 10.0)
    torch.testing.assert_close(joint_loss(vectors, vectors.flip(0), torch.tensor([True, False, False, True]), anchors, partners, together, 10.0), alone)


def test_gradient_caching_gives_the_plain_gradients(models: dict[str, str]) -> None:
    model, _ = joint_model(models, 1)
    words, seen, images, pictured = inputs(batch=6)
    pictured[4] = False
    anchors, partners, together = torch.tensor([0, 2, 4]), torch.tensor([1, 3, 5]), torch.zeros(6, 6, dtype=torch.bool)

    def encode(rows: slice) -> Tensor:
        states = model(words[rows], seen[rows], images[rows], pictured[rows])
        assert states.visual is not None
        return stacked(normalize(states.multimodal, dim=1), normalize(states.visual, dim=1))

    def loss(vectors: Tensor) -> Tensor:
        return joint_loss(*unstacked(vectors), pictured, anchors, partners, together, 20.0)

    def gradients() -> list[Tensor]:
        found = [parameter.grad.clone() for parameter in model.bridge.parameters() if parameter.grad is not None]
        model.zero_grad()
        return found

    plain = loss(encode(slice(None)))
    plain.backward()
    expected = gradients()
    value = backward_in_chunks(encode, [slice(0, 2), slice(2, 5), slice(5, 6)], loss)
    assert value == pytest.approx(plain.item(), abs=1e-5)
    for ours, reference in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-4)


# The encoder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layers", [None, 2])
def test_batch_equals_single_and_padding_moves_nothing(models: dict[str, str], layers: int | None, dtype: str) -> None:
    encoder = JointEncoder.untrained(config(models, layers=layers, dtype=dtype), seed=0)
    both, picture_alone = encoder.encode_both(CONTENTS)
    assert picture_alone is not None and encoder.chunked == 1
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(both, encoder.encode(CONTENTS))
    single = np.concatenate([encoder.encode([content]) for content in CONTENTS])
    assert (both * single).sum(1).min() > (0.99999 if dtype == "float32" else 0.995)
    assert encoder.encode([]).shape == (0, DIM)


def test_the_picture_alone_does_not_see_the_title(models: dict[str, str]) -> None:
    encoder = JointEncoder.untrained(config(models), seed=0)
    both, picture_alone = encoder.encode_both([Content("Heat", CONTENTS[0].image), Content("A quite different title", CONTENTS[0].image), CONTENTS[1]])
    assert picture_alone is not None
    np.testing.assert_allclose(picture_alone[0], picture_alone[1], atol=1e-6)
    assert np.abs(picture_alone[0] - picture_alone[2]).max() > 1e-3 and np.abs(both[0] - both[1]).max() > 1e-3


def test_contents_that_it_cannot_take(models: dict[str, str]) -> None:
    encoder = JointEncoder.untrained(config(models), seed=0)
    with pytest.raises(DataError, match="1 of 2 contents have no text, first row 1"):
        encoder.encode([CONTENTS[0], Content("", CONTENTS[0].image)])
    with pytest.raises(DataError, match="not readable as JPEG"):
        encoder.encode([Content("a title", b"no picture")])


def saved(path: Path, encoder: JointEncoder, *, split: str = "split", **options: Any) -> Path:
    untrained = encoder.config.untrained_space().space_id
    write_artifact(
        path, Manifest(KIND, "key", ""), lambda folder: save_joint_adapter(folder, encoder.model.bridge, untrained_space=untrained, split=split, **options)
    )
    return path


def test_a_trained_bridge_comes_back_and_only_to_its_own_models(models: dict[str, str], tmp_path: Path) -> None:
    base = config(models, layers=2)
    encoder = JointEncoder.untrained(base, seed=7)
    trained = base.model_copy(update={"adapter": saved(tmp_path / "adapter", encoder)})
    loaded = load_encoder(trained)
    assert isinstance(loaded, JointEncoder) and loaded.space == trained.space() and loaded.space.split_hash == "split"
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    np.testing.assert_allclose(loaded.encode(CONTENTS), encoder.encode(CONTENTS), atol=1e-6)
    assert np.abs(JointEncoder.untrained(base, seed=8).encode(CONTENTS) - encoder.encode(CONTENTS)).max() > 1e-3
    for update in ({"late_fusion": False}, {"image": ImageEncoderConfig(name="picture", model=models["other"])}, {"layers": 1}):
        with pytest.raises(SpaceMismatchError, match="use the config that it was trained with"):
            trained.model_copy(update=update).space()
    with pytest.raises(ConfigError, match="needs an adapter"):
        JointEncoder.load(base)


def test_tuned_layers_of_the_language_model_come_back(models: dict[str, str], tmp_path: Path) -> None:
    base = config(models, layers=2)
    encoder = JointEncoder.untrained(base, seed=0)
    frozen = encoder.encode(CONTENTS)
    tuning = LoraTuning(rank=2)
    torch.manual_seed(0)
    named = make_trainable(encoder.text, tuning, 2)
    with torch.no_grad():
        for parameter in named.values():
            parameter.normal_(std=0.3)
    tuned = encoder.encode(CONTENTS)
    assert np.abs(tuned - frozen).max() > 1e-3
    revision = "0" * 64
    path = saved(tmp_path / "adapter", encoder, trained=named, tuning=tuning, layers=2, base=revision)
    np.testing.assert_allclose(load_encoder(base.model_copy(update={"adapter": path})).encode(CONTENTS), tuned, atol=1e-5)


def test_whatever_moves_a_vector_moves_the_space(models: dict[str, str], tmp_path: Path) -> None:
    base = config(models)
    image = base.image
    updates: list[dict[str, Any]] = [
        {"image_tokens": 2}, {"layers": 2}, {"two_embeddings": False}, {"late_fusion": False}, {"max_length": 128}, {"template": "{title}"},
        {"dtype": "bfloat16"}, {"image": image.model_copy(update={"pooling": "mean"})}, {"image": image.model_copy(update={"framing": "letterbox"})},
        {"model": tiny_model(tmp_path / "llm", "llama", seed=1)},
    ]  # fmt: skip
    ids = [base.model_copy(update=update).space().space_id for update in updates]
    for name, seed, split in [("a", 0, "split"), ("b", 1, "split"), ("c", 0, "other split")]:
        ids.append(base.model_copy(update={"adapter": saved(tmp_path / name, JointEncoder.untrained(base, seed=seed), split=split)}).space().space_id)
    assert len({base.space().space_id, *ids}) == 1 + len(ids)
    same = {"name": "other", "token_budget": 128, "image": image.model_copy(update={"name": "x", "batch_size": 1})}
    assert base.model_copy(update=same).space() == base.space()


def test_config_joins_the_others(models: dict[str, str]) -> None:
    parsed = parse_encoder({"kind": "joint", "name": "joint", "model": models["text"], "image": {"name": "picture", "model": models["image"]}})
    assert isinstance(parsed, JointEncoderConfig) and reads(parsed) == {TEXT, IMAGE}
    assert parse_encoder(parsed.model_dump(mode="json")) == parsed
    with pytest.raises(ConfigError, match=f"has {LAYERS}"):
        config(models, layers=LAYERS + 1).space()
    with pytest.raises(ConfigError, match="positions"):
        config(models, max_length=510).space()


def test_bidirectional_models_are_refused(models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no causal language model"):
        config(models, model=tiny_model(tmp_path / "bert", "bert")).space()
