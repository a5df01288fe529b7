"""Whether a text runs in circles, as small models do. Linear in the text."""

from __future__ import annotations

import zlib

LEAST_CHARS = 64
"""Shorter texts may say "very very good"."""
_RATIO = 6.0
"""Prose of any language compresses two- to threefold; Whisper's decoder (Radford et al., 2022) calls 2.4 a failure, for shorter texts."""
_LONGEST_LOOP, _TIMES = 200, 4


def is_repetitive(text: str) -> bool:
    """True where the text as a whole compresses more than sixfold, or its end is one piece of up to 200 characters four times over."""
    text = text.strip()
    if len(text) < LEAST_CHARS:
        return False
    raw = text.encode("utf-8", "replace")
    return len(raw) > _RATIO * len(zlib.compress(raw, 6)) or _ends_in_loop(text)


def _ends_in_loop(text: str) -> bool:
    for length in range(1, _LONGEST_LOOP + 1):
        times = max(_TIMES, -(-LEAST_CHARS // length))
        if len(text) < length * times:
            continue
        if text.endswith(text[-length:] * times):
            return True
    return False
