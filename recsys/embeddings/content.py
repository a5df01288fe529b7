"""`Content`: what an encoder sees of an item."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KEY_BYTES = 32
KeyArray = npt.NDArray[np.uint8]
"""(n, 32), one content key a row."""


@dataclass(frozen=True, slots=True)
class Content:
    """An item's rendered text and the bytes of its picture file (JPEG, PNG, ...); either may be missing, and each encoder says which it needs.

    Two items with equal content share one vector.

    >>> Content("Alien").key == Content("Alien").key, Content("Alien").key == Content("Alien", image=b"...").key, bool(Content())
    (True, False, False)
    """

    text: str = ""
    image: bytes | None = None

    @property
    def key(self) -> bytes:
        """32 bytes; with an embedding space's id it is the key of the vector. Without a picture: sha256 of the UTF-8 text."""
        of_text = hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).digest()
        return of_text if self.image is None else hashlib.sha256(of_text + hashlib.sha256(self.image).digest()).digest()

    def __bool__(self) -> bool:
        """False: nothing is known of the item, so no encoder can place it."""
        return bool(self.text) or self.image is not None

    def __str__(self) -> str:
        """Short, for messages."""
        shown = repr(self.text if len(self.text) <= 80 else self.text[:77] + "...")
        return shown if self.image is None else f"{shown} with a picture of {len(self.image):,} bytes"


def of_texts(texts: Iterable[str]) -> list[Content]:
    """Contents without pictures."""
    return [Content(text) for text in texts]


def keys_of(contents: Iterable[Content]) -> KeyArray:
    """uint8 (n, 32)."""
    return np.frombuffer(b"".join([content.key for content in contents]), dtype=np.uint8).reshape(-1, KEY_BYTES)
