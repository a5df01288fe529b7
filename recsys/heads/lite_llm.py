"""`LiteLLM`: Lite-LLM4Rec (arXiv 2402.09543) ready to serve, a language model over item vectors that scores the catalogue in one product."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from recsys.artifacts.atomic import read_json, write_bytes, write_json
from recsys.embeddings.norms import speed_up_norms
from recsys.errors import ArtifactError, DataError
from recsys.heads.dot import HeadedScorer
from recsys.heads.lite_config import LiteConfig
from recsys.heads.lite_network import LiteNetwork
from recsys.heads.signals import SignalTransform, present
from recsys.training.batches import left_padded
from recsys.types import BoolArray, FloatArray, IntArray, Queries

FORMAT = 1
_ROWS = 128
"""Histories that are read at once: bounds the memory of a large chunk."""
_WEIGHTS, _FACTS = "lite_llm.safetensors", "lite_llm.json"


class LiteLLM:
    """A fitted Scorer and Backbone. Immutable; the items' vectors are computed once.

    transform: of the item vectors, fitted on training items; None where none are read.  space_id: theirs.
    scorable: bool (n,).  readable: bool (n,), items that a history may hold; others are left out of it.
    default_state: float32 (d,), the state of an empty history.  item_digest: of the items' vocabulary.
    """

    def __init__(
        self,
        network: LiteNetwork,
        transform: SignalTransform | None,
        space_id: str,
        scorable: BoolArray,
        readable: BoolArray,
        default_state: FloatArray | None = None,
        *,
        item_digest: str | None = None,
    ) -> None:
        self.config, self.space_id, self.item_digest = network.config, space_id, item_digest
        self._network = network.eval().requires_grad_(False)
        self._transform = transform
        with torch.inference_mode():
            self._inputs = network.inputs()
            self._items: FloatArray = network.items(self._inputs).numpy().copy()
        self._scorable, self._readable = scorable, readable
        self._default = np.zeros(self._items.shape[1], dtype=np.float32) if default_state is None else default_state
        for array in (self._items, scorable, readable):
            array.flags.writeable = False
        self._scorer = HeadedScorer(self)

    @property
    def n_items(self) -> int:
        return len(self._items)

    @property
    def default_state(self) -> FloatArray:
        return self._default

    def scorable_items(self) -> BoolArray:
        """Free head: items with training interactions. Tied head: items with a vector."""
        return self._scorable

    def items(self) -> FloatArray:
        """float32 (n_items, d), read-only. Of a free head the last coordinate is the bias."""
        return self._items

    def represent(self, queries: Queries) -> FloatArray:
        """float32 (B, d): the state after the last item of each history. Users are known by their histories alone.

        Raises:
            DataError: a history holds a number that is no item_num.
        """
        histories = readable_histories(queries.histories, self._readable)
        states = np.tile(self._default, (len(histories), 1)).astype(np.float32)
        # By length: a long history does not make all others long.
        some = sorted((row for row, history in enumerate(histories) if len(history)), key=lambda row: len(histories[row]))
        with torch.inference_mode():
            for start in range(0, len(some), _ROWS):
                chosen = some[start : start + _ROWS]
                states[chosen] = self._last_states([histories[row] for row in chosen])
        return states

    def _last_states(self, histories: Sequence[IntArray]) -> FloatArray:
        rows = left_padded(histories, self.config.max_length)
        found = self._network.states(torch.from_numpy(rows), self._inputs)
        last = np.cumsum([min(len(history), self.config.max_length) for history in histories]) - 1
        values: FloatArray = found[torch.from_numpy(last)].numpy()
        return values

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C) = represent @ items.T."""
        return self._scorer.score(queries, item_nums)

    def score_into(self, queries: Queries, item_nums: IntArray, out: FloatArray) -> None:
        """`score`, written into `out` float32 (B, C)."""
        self._scorer.score_into(queries, item_nums, out)

    def vectors_of_new(self, vectors: FloatArray) -> FloatArray:
        """float32 (m, d), beside `items`: items that training never saw, by their raw vectors float32 (m, k) of the same space.

        Raises:
            DataError: a free head, which has no column for them, or vectors of another width.
        """
        if self.config.head != "tied" or self._transform is None:
            raise DataError("a free head has no column for new items; train with head: tied")
        if vectors.ndim != 2 or vectors.shape[1] != self._transform.in_width:
            raise DataError(f"vectors of shape {vectors.shape}, expected (m, {self._transform.in_width})")
        present(vectors, "items")
        assert self._network.map is not None and self._network.head is not None
        with torch.inference_mode():
            found: FloatArray = self._network.head.items(self._network.map(self._transform(vectors))).numpy()
        return found

    def save(self, folder: Path) -> None:
        """lite_llm.safetensors and lite_llm.json; put them into an artifact, whose manifest holds their sha256."""
        tensors = {"default_state": torch.from_numpy(self._default.copy())}
        tensors |= {name: torch.from_numpy(mask.astype(np.uint8)) for name, mask in (("scorable", self._scorable), ("readable", self._readable))}
        if self._transform is not None:
            tensors |= {"mean": self._transform.mean} | ({} if self._transform.matrix is None else {"matrix": self._transform.matrix})
        save_network(folder, self._network, tensors, {"space_id": self.space_id, "item_digest": self.item_digest})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises ArtifactError: files missing, or written by another version. No other weights are needed."""
        network, tensors, facts = load_network(folder)
        options = network.config.input_map
        transform = SignalTransform(tensors["mean"], tensors.get("matrix"), options.transform == "unit", options.scale) if "mean" in tensors else None
        scorable, readable = (tensors[name].numpy().astype(np.bool_) for name in ("scorable", "readable"))
        return cls(network, transform, facts["space_id"], scorable, readable, tensors["default_state"].numpy(), item_digest=facts["item_digest"])


def readable_histories(histories: Sequence[IntArray], readable: BoolArray) -> list[IntArray]:
    """Without the items that cannot be read. Raises DataError: a number that is no item_num."""
    for history in histories:
        if len(history) and (history.min() < 0 or history.max() >= len(readable)):
            found = f"{int(history.min())}..{int(history.max())}"
            raise DataError(f"history holds item_num {found}; this model knows 0..{len(readable) - 1}; leave unknown items out")
    return [history[readable[history]] for history in histories]


def save_network(folder: Path, network: LiteNetwork, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """The weights as they are (of LoRA beside those they stand on), `tensors`, and how to build what holds them."""
    weights = {f"network.{name}": value for name, value in network.state_dict().items()} | tensors
    write_bytes(folder / _WEIGHTS, safetensors.torch.save({name: value.detach().clone().contiguous() for name, value in weights.items()}))
    body = {key: value for key, value in network.body.config.to_dict().items() if key not in ("_name_or_path", "dtype", "torch_dtype")}
    write_json(folder / _FACTS, {"format": FORMAT, "config": network.config.model_dump(mode="json"), "language_model": body, **facts})


def load_network(folder: Path) -> tuple[LiteNetwork, dict[str, Tensor], dict[str, Any]]:
    """(network, the other tensors, facts). Raises ArtifactError."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        facts = read_json(folder / _FACTS)
        tensors = safetensors.torch.load((folder / _WEIGHTS).read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder}: no saved Lite-LLM ({Path(error.filename).name} is missing)") from None
    if facts["format"] != FORMAT:
        raise ArtifactError(f"{folder}: Lite-LLM format {facts['format']}, this code reads {FORMAT}")
    config = LiteConfig.parse(facts["config"], source=str(folder))
    state = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    body = dict(facts["language_model"])
    # Its table of tokens is not in the file; one of a single token stands in while the model is built.
    small = AutoConfig.for_model(body.pop("model_type"), **{**body, "vocab_size": 1, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None})
    kind: Any = AutoModelForCausalLM
    model = kind.from_config(small).eval().requires_grad_(False)
    speed_up_norms(model)
    n_items = len(tensors["readable"])
    network = LiteNetwork(config, model, n_items, state.get("vectors"), None)
    for name in ("title_table", "token_inputs", "token_outputs"):
        if name in state:
            network.register_buffer(name, state[name])
    network.load_state_dict(state)
    return network, {name: value for name, value in tensors.items() if not name.startswith("network.")}, facts
