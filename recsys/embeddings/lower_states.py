"""`LowerStates`: what the frozen lower layers make of each text, computed once and read from a mapped file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recsys.artifacts.atomic import sha256_of, write_bytes, write_json
from recsys.embeddings.content import KEY_BYTES, Content
from recsys.embeddings.layers import LowerHalf
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.windows import Batch, Window
from recsys.errors import ArtifactError

_INDEX = np.dtype([("key", np.uint8, (KEY_BYTES,)), ("offset", np.int64), ("length", np.int64), ("start", np.int64)])
_CONTENTS_A_SHARD = 512


class Words(Protocol):
    """How a model reads texts: a `TextEncoder`, or the part of another encoder that does. space: of all that can move a word's state."""

    model: nn.Module

    @property
    def space(self) -> EmbeddingSpace: ...

    @property
    def dim(self) -> int: ...

    def windows(self, texts: Sequence[str]) -> list[Window]: ...

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]: ...


@dataclass(frozen=True, slots=True)
class StoredWindow:
    """states: uint16 (L, d), the bits of bf16, mapped.  start: position from which on tokens are pooled."""

    states: npt.NDArray[np.uint16]
    start: int

    @property
    def weight(self) -> int:
        """Tokens that are pooled: the share of this window in its text's vector."""
        return len(self.states) - self.start


@dataclass(frozen=True)
class StateBatch:
    """states: bf16 (B, L, d), padded with 0 on the right.  seen, pooled: bool (B, L), as in `recsys.embeddings.windows.Batch`."""

    states: Tensor
    seen: Tensor
    pooled: Tensor

    @classmethod
    def of(cls, windows: Sequence[StoredWindow]) -> StateBatch:
        lengths = torch.tensor([len(window.states) for window in windows])
        starts = torch.tensor([window.start for window in windows])
        longest = int(lengths.max())
        bits = np.zeros((len(windows), longest, windows[0].states.shape[1]), dtype=np.uint16)
        for row, window in enumerate(windows):
            bits[row, : len(window.states)] = window.states
        positions = torch.arange(longest)
        seen = positions < lengths[:, None]
        return cls(torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16), seen, seen & (positions >= starts[:, None]))


class LowerStates:
    """The states before layer `first` of an encoder's model, by content. Written shard by shard, so that a killed run resumes.

    They live in `root/<space_id>-<first>/`: `<digest>.npy` holds the bits, `<digest>.index.npy`, written after it, tells whose
    they are. The digest is the sha256 of the former. An item of 30 tokens takes 35 kB at 576 dimensions.

    Raises:
        ArtifactError: a shard whose bytes do not match its name.
    """

    def __init__(self, root: Path, encoder: Words, first: int) -> None:
        self.folder = root / f"{encoder.space.space_id}-{first}"
        self._encoder, self._first = encoder, first
        self._windows: dict[bytes, list[StoredWindow]] = {}
        for index in sorted(self.folder.glob("*.index.npy")):
            if not index.name.startswith("."):
                self._read(index)

    def __len__(self) -> int:
        return len(self._windows)

    def of(self, content: Content) -> list[StoredWindow]:
        """The windows of one content. Raises ArtifactError: not stored."""
        try:
            return self._windows[content.key]
        except KeyError:
            raise ArtifactError(f"{self.folder}: no states of {content}; fill the store first") from None

    def fill(self, contents: Sequence[Content], advance: Callable[[int, int], None] | None = None) -> int:
        """Compute and store what is missing; returns how many contents that were. advance: told (done, total) of the missing.

        Raises:
            DataError: a content whose text has no tokens.
        """
        missing = [content for content in dict.fromkeys(contents) if content.key not in self._windows]
        # Of similar lengths, so that a shard's batches pad little.
        missing.sort(key=lambda content: len(content.text))
        lower = LowerHalf(self._encoder.model, self._first)
        for start in range(0, len(missing), _CONTENTS_A_SHARD):
            self._compute(lower, missing[start : start + _CONTENTS_A_SHARD])
            if advance is not None:
                advance(min(start + _CONTENTS_A_SHARD, len(missing)), len(missing))
        return len(missing)

    @torch.inference_mode()
    def _compute(self, lower: LowerHalf, contents: Sequence[Content]) -> None:
        windows = self._encoder.windows([content.text for content in contents])
        lengths = np.array([len(window.ids) for window in windows], dtype=np.int64)
        offsets = np.cumsum(lengths) - lengths
        bits = np.empty((int(lengths.sum()), self._encoder.dim), dtype=np.uint16)
        for rows in self._encoder.batches(lengths.tolist()):
            batch = Batch.of([windows[row] for row in rows])
            states = lower(input_ids=batch.ids, **mask_of(self._encoder, batch)).bfloat16().view(torch.int16).numpy().view(np.uint16)
            for place, row in enumerate(rows):
                bits[offsets[row] : offsets[row] + lengths[row]] = states[place, : lengths[row]]
        index = np.empty(len(windows), dtype=_INDEX)
        index["key"] = [np.frombuffer(contents[window.owner].key, dtype=np.uint8) for window in windows]
        index["offset"], index["length"], index["start"] = offsets, lengths, [window.start for window in windows]
        self._write(bits, index)

    def _write(self, bits: npt.NDArray[np.uint16], index: npt.NDArray[Any]) -> None:
        if not (self.folder / "space.json").exists():
            write_json(self.folder / "space.json", {**self._encoder.space.model_dump(mode="json"), "states_before_layer": self._first})
        digest = _write_npy(self.folder, bits)
        buffer = io.BytesIO()
        np.save(buffer, index, allow_pickle=False)
        write_bytes(self.folder / f"{digest}.index.npy", buffer.getvalue())
        self._read(self.folder / f"{digest}.index.npy", trusted=True)

    def _read(self, path: Path, *, trusted: bool = False) -> None:
        states = path.with_name(path.name.replace(".index", ""))
        if not trusted and (not states.is_file() or sha256_of(states) != states.stem):
            raise ArtifactError(f"{states}: missing, or its sha256 differs from its name; delete {path.name}, its items are then computed again")
        bits, index = np.load(states, mmap_mode="r", allow_pickle=False), np.load(path, allow_pickle=False)
        if index.dtype != _INDEX or bits.dtype != np.uint16 or bits.shape[1:] != (self._encoder.dim,):
            raise ArtifactError(
                f"{path}: holds {index.dtype} of {bits.dtype} {bits.shape}, expected states of {self._encoder.dim} dimensions; delete this file"
            )
        found: dict[bytes, list[StoredWindow]] = {}
        for key, offset, length, start in zip(index["key"], index["offset"].tolist(), index["length"].tolist(), index["start"].tolist(), strict=True):
            found.setdefault(key.tobytes(), []).append(StoredWindow(bits[offset : offset + length], start))
        for content_key, windows in found.items():  # two processes may have stored one content in two shards: the first wins
            self._windows.setdefault(content_key, windows)


def mask_of(encoder: Words, batch: Batch | StateBatch) -> dict[str, Any]:
    """What the model is told of padding. A causal one needs nothing: padding stands on the right, where it never looks."""
    return {"attention_mask": batch.seen.long()} if encoder.space.attention == "bidirectional" and not bool(batch.seen.all()) else {}


def _write_npy(folder: Path, array: npt.NDArray[Any]) -> str:
    """Under the sha256 of its bytes, which is returned."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    write_bytes(folder / f"{digest}.npy", data)
    return digest
