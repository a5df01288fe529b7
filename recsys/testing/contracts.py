"""What a part of one's own has to keep to take the place of the library's: one call that says what it breaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys.embeddings.content import Content, of_texts
from recsys.embeddings.encoder import Encoder
from recsys.types import FloatArray

TEXTS = ("Alien (1979). Genres: Horror, Sci-Fi.", "Up", "Trois couleurs : Rouge — Krzysztof Kieślowski", "a " * 300, "Alien (1979). Genres: Horror, Sci-Fi.")


def check_encoder(encoder: Encoder, contents: Sequence[Content] | None = None, *, atol: float = 1e-4) -> None:
    """The contract of `Encoder`: vectors float32 (n, dim), finite, `dim` that of its space; one content one vector, whatever stands beside it, in
    whatever order and however often it is asked.

    contents: of its kind, at least two that differ; None: a few texts, among them an empty-looking long one.  atol: between a vector made alone and in a batch.

    Raises:
        AssertionError: what is broken, in words.
    """
    asked = list(contents) if contents is not None else of_texts(list(TEXTS))
    assert isinstance(encoder, Encoder), f"{type(encoder).__name__} lacks a part of Encoder: space, dim, encode(contents)"
    assert encoder.dim == encoder.space.dim, f"dim is {encoder.dim}, its space says {encoder.space.dim}"
    found = encoder.encode(asked)
    assert found.dtype == np.float32, f"vectors are {found.dtype}, not float32"
    assert found.shape == (len(asked), encoder.dim), f"{len(asked)} contents gave vectors of shape {found.shape}, expected {(len(asked), encoder.dim)}"
    assert np.isfinite(found).all(), f"NaN or infinity in the vectors of {int((~np.isfinite(found).all(axis=1)).sum())} contents"
    nothing = encoder.encode([])
    assert nothing.shape == (0, encoder.dim), f"no contents gave vectors of shape {nothing.shape}, expected {(0, encoder.dim)}"
    _same("asked twice", encoder.encode(asked), found, atol)
    _same("alone and in a batch", np.concatenate([encoder.encode([content]) for content in asked]), found, atol)
    _same("in another order", encoder.encode(asked[::-1])[::-1], found, atol)
    assert len({vector.tobytes() for vector in found}) > 1, (
        "all contents have one vector; if it reads others than titles, pass contents=of_texts([...]) of its kind"
    )


def _same(how: str, values: FloatArray, expected: FloatArray, atol: float) -> None:
    gap = float(np.abs(values - expected).max())
    assert gap <= atol, f"a content's vector is not its own: {how} they differ by {gap:.2g} (at most {atol:g})"
