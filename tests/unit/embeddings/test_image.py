"""Every family equals a direct forward of transformers; a batch equals its single pictures; whatever moves a vector moves the space."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from recsys.embeddings.content import Content
from recsys.embeddings.image import ImageEncoder
from recsys.embeddings.image_config import ImageEncoderConfig
from recsys.embeddings.image_decode import decode
from recsys.embeddings.image_models import letterbox
from recsys.errors import ConfigError, DataError, ImageError
from recsys.testing.vision_models import DIM, FAMILIES, PROJECTED, SIDE, picture, tiny_vision_model
from recsys.types import FloatArray

POOLINGS = {
    "clip": ("projected", "cls", "mean"),
    "siglip": ("pooler", "mean"),
    "siglip2": ("pooler", "mean"),
    "dinov2": ("cls", "mean"),
    "vit": ("cls", "mean"),
}
CASES = [(family, pooling) for family in FAMILIES for pooling in POOLINGS.get(family, POOLINGS[family.split("_")[0]])]
CASES.remove(("clip_vision_model", "projected"))  # AutoModel has no projection for it: a test of its own
SHAPES = [(40, 60), (60, 40), (33, 90), (200, 190), (5, 7)]
CONTENTS = [Content(image=picture(seed, width, height)) for seed, (width, height) in enumerate(SHAPES)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {family: tiny_vision_model(tmp_path_factory.mktemp("models") / family, family) for family in FAMILIES}


def config(model: str, **options: Any) -> ImageEncoderConfig:
    return ImageEncoderConfig(name="poster", model=model, **options)


def direct(model: str, pooling: str) -> FloatArray:
    """As the documentation of transformers has it: the whole model with its processor, one picture at a time."""
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(model, backend="pil")
    whole = AutoModel.from_pretrained(model).eval()
    rows = []
    for content in CONTENTS:
        inputs = processor(images=decode(content.image or b""), return_tensors="pt")
        with torch.no_grad():
            if pooling in ("projected", "pooler") and hasattr(whole, "get_image_features"):
                rows.append(whole.get_image_features(**inputs).pooler_output)
                continue
            out = getattr(whole, "vision_model", whole)(**inputs)
        if pooling == "pooler" or (pooling == "cls" and "clip" in whole.config.model_type):
            rows.append(out.pooler_output)
        elif pooling == "cls":
            rows.append(out.last_hidden_state[:, 0])
        else:
            patches = out.last_hidden_state[0]
            if "siglip" not in whole.config.model_type:
                patches = patches[-((SIDE // 8) ** 2) :]  # class and register tokens stand first
            if "pixel_attention_mask" in inputs:
                patches = patches[: int(inputs["pixel_attention_mask"].sum())]
            rows.append(patches.mean(0, keepdim=True))
    return torch.cat(rows).numpy()


@pytest.mark.parametrize(("family", "pooling"), CASES)
def test_equals_a_direct_forward(models: dict[str, str], family: str, pooling: str) -> None:
    expected = direct(models[family], pooling)
    found = ImageEncoder.load(config(models[family], pooling=pooling, normalise=False, batch_size=2)).encode(CONTENTS)
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)
    assert np.std(expected, axis=0).max() > 1e-3  # the pictures do differ


def test_projection_of_a_vision_only_checkpoint(models: dict[str, str]) -> None:
    from transformers import AutoImageProcessor, CLIPVisionModelWithProjection

    folder = models["clip_vision_model"]
    inputs = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=[decode(c.image or b"") for c in CONTENTS], return_tensors="pt")
    with torch.no_grad():
        expected = CLIPVisionModelWithProjection.from_pretrained(folder)(**inputs).image_embeds.numpy()
    np.testing.assert_allclose(ImageEncoder.load(config(folder, normalise=False)).encode(CONTENTS), expected, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_batch_equals_single_and_frozen_means_frozen(models: dict[str, str], family: str, dtype: str) -> None:
    encoder = ImageEncoder.load(config(models[family], dtype=dtype))
    vectors = encoder.encode(CONTENTS)
    assert vectors.dtype == np.float32 and vectors.shape == (len(CONTENTS), encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors, encoder.encode(CONTENTS))
    single = np.concatenate([encoder.encode([content]) for content in CONTENTS])
    assert (vectors * single).sum(1).min() > (0.999999 if dtype == "float32" else 0.999)
    np.testing.assert_allclose(vectors[::-1], encoder.encode(CONTENTS[::-1]), atol=1e-5 if dtype == "float32" else 2e-2)


def test_threads_change_nothing(models: dict[str, str]) -> None:
    encoder = ImageEncoder.load(config(models["vit"], batch_size=2))
    contents = [Content(image=picture(seed)) for seed in range(13)]
    torch.set_num_threads(1)
    vectors = encoder.encode(contents)
    torch.set_num_threads(3)
    np.testing.assert_allclose(encoder.encode(contents), vectors, atol=1e-6)
    with pytest.raises(ImageError, match="row 8: picture of 1 bytes"):
        encoder.encode([*contents[:8], Content(image=b"x"), *contents[8:]])


def test_a_large_jpeg_is_nearly_its_small_self(models: dict[str, str]) -> None:
    """It is unpacked at a fraction of its size: the vector is that of the full size but for rounding."""
    large = Content(image=picture(4, 1000, 1400, "JPEG"))
    assert decode(large.image or b"", enough=2 * SIDE).size == (125, 175)
    encoder = ImageEncoder.load(config(models["clip"]))
    expected = encoder.encode([Content(image=picture(4, 1000, 1400, "PNG"))])
    assert (encoder.encode([large]) * expected).sum() > 0.999


def test_native_poolings_and_dims(models: dict[str, str]) -> None:
    spaces = {family: config(model).space() for family, model in models.items()}
    assert {family: space.pooling for family, space in spaces.items()} == {
        "clip": "projected", "clip_vision_model": "projected", "siglip": "pooler", "siglip2": "pooler",
        "dinov2": "cls", "dinov2_with_registers": "cls", "vit": "cls",
    }  # fmt: skip
    assert {space.dim for space in spaces.values()} == {DIM, PROJECTED}
    assert config(models["clip"], pooling="projected").space() == spaces["clip"]  # said or native: one space


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2", "dinov2", "vit"])
def test_every_option_that_moves_a_vector_moves_the_space(models: dict[str, str], family: str, tmp_path: Path) -> None:
    base = config(models[family])
    vectors = ImageEncoder.load(base).encode(CONTENTS)
    options: list[dict[str, Any]] = [{"framing": "letterbox"}, {"image_size": SIDE + 16}, {"pooling": "mean"}, {"dtype": "bfloat16"}, {"normalise": False}]
    others = [base.model_copy(update=update) for update in options]
    others.append(config(tiny_vision_model(tmp_path / "weights" / family, family, seed=1)))
    edited = Path(shutil.copytree(models[family], tmp_path / "processor" / family))
    settings = json.loads((edited / "preprocessor_config.json").read_text())
    (edited / "preprocessor_config.json").write_text(json.dumps(settings | {"image_std": [0.4, 0.4, 0.4]}))
    others.append(config(str(edited)))
    ids = {base.space().space_id}
    for other in others:
        encoder = ImageEncoder.load(other)
        assert encoder.space == other.space() and encoder.space.model == family
        found = encoder.encode(CONTENTS)
        assert np.isfinite(found).all() and found.shape == (len(CONTENTS), encoder.dim)
        assert found.shape != vectors.shape or not np.allclose(found, vectors, atol=1e-6), other
        ids.add(encoder.space.space_id)
    assert len(ids) == 1 + len(others)


def test_what_moves_no_vector_moves_no_space(models: dict[str, str], tmp_path: Path) -> None:
    base = config(models["vit"])
    moved = str(shutil.copytree(models["vit"], tmp_path / "vit"))
    for other in (base.model_copy(update={"name": "other", "batch_size": 3, "max_pixels": 10**7}), config(moved)):
        assert other.space() == base.space()


def test_the_space_names_the_decoder_and_loads_no_model(models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import PIL
    import transformers

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", None)
    space = config(models["clip"]).space()
    assert f"Pillow {PIL.__version__} (libjpeg_turbo " in space.image_backend and "native CLIPImageProcessorPil" in space.image_backend
    assert space.image_size == SIDE and (space.tokenizer, space.template) == ("", "")


def test_letterbox_keeps_the_whole_picture() -> None:
    tall = letterbox(Image.new("RGB", (10, 40), "red"), 20, Image.Resampling.BILINEAR)
    assert tall.size == (20, 20)
    assert np.asarray(tall)[:, :, 0].tolist() == [[127] * 7 + [255] * 5 + [127] * 8] * 20
    assert letterbox(Image.new("RGB", (500, 1)), 16, Image.Resampling.BICUBIC).size == (16, 16)


def test_native_framing_of_clip_cuts_the_borders_and_letterbox_does_not(models: dict[str, str]) -> None:
    """A tall picture whose upper edge alone differs."""
    plain = decode(picture(3, 40, 80))
    marked = plain.copy()
    marked.paste("white", (0, 0, 40, 12))

    def bytes_of(image: Image.Image) -> bytes:
        import io

        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    pair = [Content(image=bytes_of(plain)), Content(image=bytes_of(marked))]
    cut = ImageEncoder.load(config(models["clip"])).encode(pair)
    whole = ImageEncoder.load(config(models["clip"], framing="letterbox")).encode(pair)
    assert np.allclose(cut[0], cut[1], atol=1e-5) and not np.allclose(whole[0], whole[1], atol=1e-3)


def test_contents_without_a_picture_and_broken_pictures(models: dict[str, str]) -> None:
    encoder = ImageEncoder.load(config(models["vit"]))
    with pytest.raises(DataError, match=r"'poster': 2 of 3 contents have no picture, first row 1 \('a title'\)"):
        encoder.encode([CONTENTS[0], Content("a title"), Content()])
    with pytest.raises(ImageError, match="'poster': row 1: picture of 9 bytes: not readable"):
        encoder.encode([CONTENTS[0], Content(image=b"no jpeg!!")])
    with pytest.raises(ImageError, match="limit is 100"):
        ImageEncoder.load(config(models["vit"], max_pixels=100)).encode(CONTENTS[:1])
    assert encoder.encode([]).shape == (0, DIM)
    np.testing.assert_array_equal(encoder.encode([Content("any text", CONTENTS[0].image)]), encoder.encode(CONTENTS[:1]))  # texts are not looked at


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("clip", {"pooling": "pooler"}, "projected, cls, mean, got 'pooler'"),
        ("siglip", {"pooling": "cls"}, "pooler, mean, got 'cls'"),
        ("dinov2", {"pooling": "projected"}, "cls, mean"),
        ("vit", {"image_size": 30}, "no multiple of the 8 pixels"),
    ],
)
def test_options_that_do_not_fit(models: dict[str, str], family: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(models[family], **options).space()


def test_files_that_are_no_image_model(models: dict[str, str], tmp_path: Path) -> None:
    def edited(name: str, **changes: Any) -> Path:
        folder = Path(shutil.copytree(models["vit"], tmp_path / name))
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | changes))
        return folder

    with pytest.raises(ConfigError, match="lack 16 weights of ViTModel"):  # a third layer, which would be random
        ImageEncoder.load(config(str(edited("deeper", num_hidden_layers=3))))
    with pytest.raises(ConfigError, match="'bert' model is not an image encoder; known: clip"):
        config(str(edited("text", model_type="bert"))).space()
    pickled = edited("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="pickled weights"):
        config(str(pickled)).space()
    bare = edited("bare")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match="preprocessor_config.json"):
        config(str(bare)).space()
    with pytest.raises(ConfigError, match="no such folder"):
        config("./no/such/folder").space()
