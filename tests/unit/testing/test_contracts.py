"""The contract of encoders: kept by the library's own, and each breach is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from recsys.embeddings.content import Content
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.text import TextEncoder, TextEncoderConfig
from recsys.testing.contracts import check_encoder
from recsys.testing.language_models import tiny_model
from recsys.types import FloatArray

TEMPLATE = "{title}"


def test_the_librarys_own_keep_it(tmp_path: Path) -> None:
    check_encoder(HashedEncoder(template=TEMPLATE))
    folder = tiny_model(tmp_path, "llama")
    check_encoder(TextEncoder.load(TextEncoderConfig(name="tiny", model=folder, template=TEMPLATE, dtype="float32", max_length=64)))


class Broken(HashedEncoder):
    def __init__(self, breach: str) -> None:
        super().__init__(template=TEMPLATE)
        self._breach, self._calls = breach, 0

    @property
    def dim(self) -> int:
        return super().dim + (self._breach == "dim")

    def encode(self, contents: Sequence[Content]) -> FloatArray:
        found = super().encode(contents)
        self._calls += 1
        match self._breach:
            case "dtype":
                return found.astype(np.float64)  # type: ignore[return-value]
            case "rows":
                return found[:-1] if len(found) else found
            case "nan":
                found[:1] = np.nan
            case "empty":
                return found if len(found) else np.zeros((0, 3), dtype=np.float32)
            case "drift":
                found = found + np.float32(self._calls)
            case "batch":
                found = found - found.mean(axis=0) if len(found) else found
            case "constant":
                found = np.ones_like(found)
        return found


@pytest.mark.parametrize(
    ("breach", "told"),
    [
        ("dim", "its space says"),
        ("dtype", "float64"),
        ("rows", "gave vectors of shape"),
        ("nan", "NaN or infinity"),
        ("empty", "no contents"),
        ("drift", "asked twice"),
        ("batch", "alone and in a batch"),
        ("constant", "all contents have one vector"),
    ],
)
def test_each_breach_is_named(breach: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check_encoder(Broken(breach))


def test_what_is_no_encoder_is_told_so() -> None:
    with pytest.raises(AssertionError, match="lacks a part of Encoder"):
        check_encoder(object())  # type: ignore[arg-type]
