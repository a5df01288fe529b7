"""`Aligned`: what stage 1 leaves. Items in the joint space, and a Scorer in the frozen model's own space that reaches cold items."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, Self

import numpy as np
import safetensors.torch
import torch

from recsys.alignment.config import MatchingConfig
from recsys.alignment.frozen import FrozenBackbone
from recsys.alignment.matching import MatchingNetwork
from recsys.artifacts.atomic import read_json, write_bytes, write_json
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import ArtifactError, SpaceMismatchError
from recsys.heads.dot import HeadedScorer
from recsys.types import BoolArray, FloatArray, IntArray, Queries

FORMAT = 1
_WEIGHTS, _FACTS = "matching.safetensors", "matching.json"
Side = Literal["joint", "collaborative", "text"]


class Aligned:
    """A Backbone and Scorer: the frozen model's user states against the item vectors decoded from the joint space. Immutable.

    warm: bool (n,), items with training interactions, which stand by their collaborative side e_i; all others by their text q_i.
    has_text: bool (n,).  texts: float32 (n, k).  text_space: of the text vectors.  split_hash, item_digest: what it was fitted on.
    """

    def __init__(
        self, network: MatchingNetwork, backbone: FrozenBackbone, texts: FloatArray, warm: BoolArray, has_text: BoolArray, *,
        text_space: str, split_hash: str, item_digest: str | None,
    ) -> None:  # fmt: skip
        self.config, self.text_space, self.split_hash, self.item_digest = network.config, text_space, split_hash, item_digest
        self.network = network.eval().requires_grad_(False)
        self.backbone, self.warm, self.has_text = backbone, warm, has_text
        with torch.inference_mode():
            self._items_side: FloatArray = network.of_items(torch.from_numpy(backbone.items.copy())).numpy()
            self._texts_side: FloatArray = network.of_texts(torch.from_numpy(texts.copy())).numpy()
            self._decoded: FloatArray = network.decoded(torch.from_numpy(self.joint())).numpy()
        if self.config.warm_items == "own":
            self._decoded = np.where(warm[:, None], backbone.items, self._decoded)
        for array in (self._items_side, self._texts_side, self._decoded):
            array.flags.writeable = False
        self._scorer = HeadedScorer(self)

    @property
    def n_items(self) -> int:
        return len(self._decoded)

    def scorable_items(self) -> BoolArray:
        """Items with training interactions or a text."""
        return np.asarray(self.warm | self.has_text, dtype=np.bool_)

    def joint(self, side: Side = "joint") -> FloatArray:
        """float32 (n, d'): e_i of warm items and q_i of the others; or one side of all (e_i of a cold item means nothing)."""
        if side == "collaborative":
            return self._items_side
        return self._texts_side if side == "text" else np.where(self.warm[:, None], self._items_side, self._texts_side)

    def items(self) -> FloatArray:
        """float32 (n, d), read-only."""
        return self._decoded

    def represent(self, queries: Queries) -> FloatArray:
        """float32 (B, d): the frozen model's states."""
        return self.backbone.states(queries.user_nums, queries.histories)

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C) = represent @ items.T."""
        return self._scorer.score(queries, item_nums)

    def score_into(self, queries: Queries, item_nums: IntArray, out: FloatArray) -> None:
        """`score`, written into `out` float32 (B, C)."""
        self._scorer.score_into(queries, item_nums, out)

    def all_new(self) -> HeadedScorer:
        """A Scorer that ranks every item with a text as if it were new, by its text side: what the alignment knows beside the frozen model."""
        with torch.inference_mode():
            vectors: FloatArray = self.network.decoded(torch.from_numpy(self._texts_side.copy())).numpy()
        return HeadedScorer(_TextSide(self, vectors))

    @property
    def digest(self) -> str:
        """sha256 of the trained weights and of what they stand on."""
        running = hashlib.sha256(f"{self.backbone.digest}/{self.text_space}/{self.config.digest()}".encode())
        for name, value in sorted(self.network.state_dict().items()):
            running.update(name.encode() + value.numpy().astype("<f4").tobytes())
        return running.hexdigest()

    def table(self, vocabulary: Vocabulary, side: Side = "joint") -> EmbeddingTable:
        """`joint(side)` as a table, for the joint signal of a fused ranker. Its space is that of this very alignment."""
        space = EmbeddingSpace(
            model="a-llmrec stage 1",
            revision=self.digest,
            tokenizer="",
            template=f"text {self.text_space}",
            max_length=0,
            layer=-1,
            pooling=side,
            attention="",
            normalise=False,
            dtype="float32",
            dim=int(self._items_side.shape[1]),
            split_hash=self.split_hash,
        )
        return EmbeddingTable(np.ascontiguousarray(self.joint(side)), vocabulary, space)

    def save(self, folder: Path) -> None:
        """matching.safetensors and matching.json; the frozen model and the text vectors are artifacts of their own."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {name: torch.from_numpy(mask.astype(np.uint8)) for name, mask in (("warm", self.warm), ("has_text", self.has_text))}
        write_bytes(folder / _WEIGHTS, safetensors.torch.save({name: value.detach().clone().contiguous() for name, value in tensors.items()}))
        facts = {"format": FORMAT, "config": self.config.model_dump(mode="json"), "backbone": self.backbone.digest, "text_space": self.text_space}
        write_json(folder / _FACTS, facts | {"split_hash": self.split_hash, "item_digest": self.item_digest})

    @classmethod
    def load(cls, folder: Path, backbone: FrozenBackbone, texts: EmbeddingTable, vocabulary: Vocabulary) -> Self:
        """Raises ArtifactError: files missing or of another version; SpaceMismatchError: another backbone, text space or vocabulary."""
        try:
            facts = read_json(folder / _FACTS)
            tensors = safetensors.torch.load((folder / _WEIGHTS).read_bytes())
        except FileNotFoundError as error:
            raise ArtifactError(f"{folder}: no saved alignment ({Path(error.filename).name} is missing)") from None
        if facts["format"] != FORMAT:
            raise ArtifactError(f"{folder}: alignment format {facts['format']}, this code reads {FORMAT}")
        for noun, stated, given in (
            ("backbone", facts["backbone"], backbone.digest),
            ("text space", facts["text_space"], texts.space_id),
            ("vocabulary", facts["item_digest"], vocabulary.digest),
        ):
            if stated != given:
                raise SpaceMismatchError(f"{folder}: aligned with {noun} {stated[:12]}, given was {given[:12]}; give the one it was fitted on")
        config = MatchingConfig.parse(facts["config"], source=str(folder))
        values = texts.aligned_to(vocabulary)
        network = MatchingNetwork(config, backbone.dim, values.shape[1], 1.0, 1.0)
        network.load_state_dict({name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")})
        warm, has_text = (tensors[name].numpy().astype(np.bool_) for name in ("warm", "has_text"))
        return cls(
            network, backbone, values, warm, has_text, text_space=texts.space_id, split_hash=facts["split_hash"], item_digest=facts["item_digest"]
        )  # fmt: skip


class _TextSide:
    """A Backbone."""

    def __init__(self, aligned: Aligned, vectors: FloatArray) -> None:
        self._aligned, self._vectors = aligned, vectors

    @property
    def n_items(self) -> int:
        return len(self._vectors)

    def scorable_items(self) -> BoolArray:
        return self._aligned.has_text

    def items(self) -> FloatArray:
        return self._vectors

    def represent(self, queries: Queries) -> FloatArray:
        return self._aligned.represent(queries)
