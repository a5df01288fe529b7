"""`FusedRanker`: IDs and frozen text vectors in one sequential ranker, ready to serve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from recsys.artifacts.atomic import read_json, write_bytes, write_json
from recsys.errors import ArtifactError, DataError
from recsys.heads.config import FusionConfig
from recsys.heads.dot import HeadedScorer
from recsys.heads.network import FusionNetwork
from recsys.heads.signals import SignalTransform
from recsys.heads.signals import present as present_rows
from recsys.models.sequential import SequentialBackbone
from recsys.types import BoolArray, FloatArray, IntArray, Queries

ID = "id"
"""Name of the collaborative signal in `shares`."""
FORMAT = 2
_ID_TABLES = ("ids.weight", "head.ids.weight")


class FusedRanker:
    """A fitted Scorer and Backbone. Immutable; items are computed once.

    components: float32 (n, 1 + S, d), the gated share of ID and signals in each vector that is ranked, before the projection (order:
    "id", then `spaces`).  read: float32 (n, d), the vectors that are read, where the head is free; else they are the components' sum.
    transforms: of each signal, fitted on training items.
    spaces: signal -> space_id of the vectors it was trained on.  item_digest: of the items' vocabulary, where it is known.
    """

    def __init__(
        self,
        config: FusionConfig,
        network: FusionNetwork,
        components: Tensor,
        scorable: BoolArray,
        transforms: Mapping[str, SignalTransform],
        spaces: Mapping[str, str],
        default_state: FloatArray | None = None,
        *,
        read: Tensor | None = None,
        item_digest: str | None = None,
    ) -> None:
        self.config, self.spaces, self.item_digest = config, dict(spaces), item_digest
        self._network = network.eval().requires_grad_(False)
        self._transforms = dict(transforms)
        with torch.no_grad():
            self._components = components.detach().clone()
            ranked = self._components.sum(dim=1)
            self._read = ranked if read is None else read.detach().clone()
            outputs = network.ranked_sum(ranked)
        self._backbone = SequentialBackbone(network.encoder, self._read, outputs.numpy().copy(), scorable, default_state)
        self._scorer = HeadedScorer(self._backbone)

    @property
    def n_items(self) -> int:
        return self._backbone.n_items

    @property
    def signals(self) -> tuple[str, ...]:
        return (ID, *self.spaces)

    def scorable_items(self) -> BoolArray:
        """False: no training interaction and no text vector."""
        return self._backbone.scorable_items()

    def represent(self, queries: Queries) -> FloatArray:
        """float32 (B, d)."""
        return self._backbone.represent(queries)

    def items(self) -> FloatArray:
        """float32 (n_items, d), read-only."""
        return self._backbone.items()

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C) = represent @ items.T."""
        return self._scorer.score(queries, item_nums)

    def score_into(self, queries: Queries, item_nums: IntArray, out: FloatArray) -> None:
        """`score`, written into `out` float32 (B, C)."""
        self._scorer.score_into(queries, item_nums, out)

    def shares(self, queries: Queries, item_nums: IntArray) -> dict[str, FloatArray]:
        """signal -> float32 (B, C); the signals' shares add up to the score."""
        return self.shares_of(self.represent(queries), item_nums)

    def shares_of(self, states: FloatArray, item_nums: IntArray) -> dict[str, FloatArray]:
        """`shares` of what `represent` gave, float32 (B, d)."""
        with torch.no_grad():
            parts = self._network.projected(self._components[torch.from_numpy(item_nums)]).numpy()
        return {name: np.asarray(states @ parts[:, number].T, dtype=np.float32) for number, name in enumerate(self.signals)}

    def parts(self) -> dict[str, FloatArray]:
        """signal -> float32 (n, d): its gated part of each item's vector; they add up to what is ranked, before the projection."""
        return {name: self._components[:, number].numpy().copy() for number, name in enumerate(self.signals)}

    def gates(self, counts: IntArray) -> dict[str, FloatArray]:
        """signal -> float32 (n,): by how much an item that has all signals and so many training interactions weighs each; 0 interactions: no ID.

        counts: int64 (n,). The weights of an item add up to the number of signals that it has; without a gate each is 1.
        """
        tower = self._network.towers[-1]
        has_id = (counts > 0) & self.config.use_ids
        present = torch.from_numpy(np.stack([has_id, *(np.ones(len(counts), dtype=np.bool_) for _ in self.spaces)], axis=1))
        with torch.no_grad():
            seen = torch.from_numpy((counts * has_id).astype(np.float32))
            weights = present.float() if tower.gate is None else tower.gate(present, seen)
        return {name: weights[:, number].numpy().copy() for number, name in enumerate(self.signals)}

    def with_items(self, vectors: Mapping[str, FloatArray]) -> FusedRanker:
        """A ranker with m items appended that have text and no interactions. vectors: signal -> float32 (m, d_s), rows aligned.

        Raises:
            DataError: not exactly the signals of this ranker, or shapes that do not fit.
        """
        if set(vectors) != set(self.spaces) or not self.spaces:
            hint = "" if self.spaces else "; an ID-only model cannot rank new items"
            raise DataError(f"new items need the signals {sorted(self.spaces)}, got {sorted(vectors)}{hint}")
        m = len(next(iter(vectors.values())))
        for name, values in vectors.items():
            expected = (m, self._transforms[name].in_width)
            if values.shape != expected:
                raise DataError(f"signal {name!r}: vectors of shape {values.shape}, expected {expected}")
        present = np.stack([np.zeros(m, dtype=np.bool_), *(present_rows(vectors[name], name) for name in self.spaces)], axis=1)
        with torch.no_grad():
            prepared = {name: self._transforms[name](vectors[name]) for name in self.spaces}
            nothing = torch.zeros(m, self.config.encoder.dim)
            more = [tower.components(nothing, prepared, torch.from_numpy(present), torch.zeros(m)) for tower in self._network.towers]
        scorable = np.concatenate([self.scorable_items(), present.any(axis=1)])
        components, read = torch.cat([self._components, more[-1]]), torch.cat([self._read, more[0].sum(dim=1)])
        return FusedRanker(self.config, self._network, components, scorable, self._transforms, self.spaces, self._backbone.default_state, read=read)

    def save(self, folder: Path) -> None:
        """ranker.safetensors and ranker.json. The ID table itself is not needed any more: the components hold it."""
        tensors = {f"network.{name}": value for name, value in self._network.state_dict().items() if name not in _ID_TABLES}
        if self._network.head is not None:
            tensors["read"] = self._read
        tensors |= {"components": self._components, "default_state": torch.from_numpy(self._backbone.default_state.copy())}
        tensors["scorable"] = torch.from_numpy(self.scorable_items().astype(np.uint8))
        for name, transform in self._transforms.items():
            tensors |= {f"mean.{name}": transform.mean} | ({} if transform.matrix is None else {f"map.{name}": transform.matrix})
        write_bytes(folder / "ranker.safetensors", safetensors.torch.save({name: t.detach().clone().contiguous() for name, t in tensors.items()}))
        # A list: JSON objects are sorted when written, and the order of the signals is that of the components.
        facts = {"format": FORMAT, "config": self.config.model_dump(mode="json"), "spaces": [[name, space] for name, space in self.spaces.items()]}
        write_json(folder / "ranker.json", facts | {"item_digest": self.item_digest})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises ArtifactError: files missing, or written by another version."""
        try:
            facts = read_json(folder / "ranker.json")
            tensors = safetensors.torch.load((folder / "ranker.safetensors").read_bytes())
        except FileNotFoundError as error:
            raise ArtifactError(f"{folder}: no saved ranker ({Path(error.filename).name} is missing)") from None
        if facts["format"] != FORMAT:
            raise ArtifactError(f"{folder}: ranker format {facts['format']}, this code reads {FORMAT}")
        config, spaces = FusionConfig.parse(facts["config"], source=str(folder)), dict(facts["spaces"])
        options = {name: config.of(name) for name in spaces}
        transforms = {n: SignalTransform(tensors[f"mean.{n}"], tensors.get(f"map.{n}"), o.transform == "unit", o.scale) for n, o in options.items()}
        network = FusionNetwork(config, 1, {name: transform.out_width for name, transform in transforms.items()})
        state = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
        network.load_state_dict(state | {name: value for name, value in network.state_dict().items() if name in _ID_TABLES})
        scorable, default_state = tensors["scorable"].numpy().astype(np.bool_), tensors["default_state"].numpy()
        # Files of before it was recorded have no digest.
        read, digest = tensors.get("read"), facts.get("item_digest")
        return cls(config, network, tensors["components"], scorable, transforms, spaces, default_state, read=read, item_digest=digest)
