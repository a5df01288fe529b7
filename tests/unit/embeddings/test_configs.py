"""One type for the config of any encoder."""

from pathlib import Path

import pytest

from recsys.embeddings.configs import IMAGE, TEXT, kind_of, parse_encoder, reads
from recsys.embeddings.image import ImageEncoder
from recsys.embeddings.image_config import ImageEncoderConfig
from recsys.embeddings.loading import load_encoder
from recsys.embeddings.text import TextEncoderConfig
from recsys.errors import ConfigError
from recsys.testing.vision_models import tiny_vision_model


def test_told_apart_by_kind_and_text_where_none_is_stated() -> None:
    text, image = parse_encoder({"name": "minilm", "model": "m"}), parse_encoder({"kind": "image", "name": "poster", "model": "m"})
    assert isinstance(text, TextEncoderConfig) and isinstance(image, ImageEncoderConfig)
    assert reads(text) == {TEXT} and reads(image) == {IMAGE} and image.template == ""
    for config in (text, image):
        assert parse_encoder(config.model_dump(mode="json")) == config and kind_of(config) == kind_of(config.model_dump())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "image", "name": "poster", "model": "m", "poolin": "cls"}, "did you mean 'pooling'"),
        ({"kind": "image", "name": "Poster", "model": "m"}, "name"),
        ({"kind": "image", "name": "poster", "model": "m", "pooling": "max"}, "'projected', 'pooler', 'cls'"),
        ({"kind": "image", "name": "poster", "model": "m", "max_length": 8}, "unknown key"),
        ({"kind": "sound", "name": "poster", "model": "m"}, "'text', 'image', 'joint'"),
    ],
)
def test_wrong_values_say_what_is_known(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_encoder(values)


def test_loaded_in_one_place(tmp_path: Path) -> None:
    config = parse_encoder({"kind": "image", "name": "poster", "model": tiny_vision_model(tmp_path / "vit", "vit")})
    encoder = load_encoder(config)
    assert isinstance(encoder, ImageEncoder) and encoder.space == config.space()
