"""The decoding loop: length-sorted rows, one common prefix computed once, finished rows replaced by waiting ones."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import get_layer_types_and_kwargs

from recsys.errors import ConfigError
from recsys.generation.choosing import choose, log_probabilities
from recsys.generation.generator import Finish
from recsys.generation.sampling import Sampling
from recsys.generation.slots import Slots, behind_prefix, joined
from recsys.types import FloatArray

_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
_LEAST_PREFIX = 8
"""A common beginning shorter than this is computed anew for each row."""


@dataclass(eq=False)
class Row:
    """One prompt on its way. `uniforms` float32 (max_new_tokens,): what its tokens are drawn with (unused when greedy)."""

    number: int
    prompt: list[int]
    uniforms: FloatArray
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0
    finish: Finish | None = None

    def __len__(self) -> int:
        return len(self.prompt) + len(self.tokens)


class Decoder:
    """Decodes rows of one frozen causal model.

    eos: token ids that end an answer. stopped: whether the tokens so far hold a stop string.
    rows: prompts decoded at once. prefill_tokens: prompt tokens computed at once. cache_tokens: bound on rows x longest row, so on memory.

    Raises:
        ConfigError: a model with other memory than keys and values (state-space, linear attention).
    """

    def __init__(
        self, model: Any, sampling: Sampling, *, eos: set[int], stopped: Callable[[Sequence[int]], bool],
        rows: int, prefill_tokens: int, cache_tokens: int,
    ) -> None:  # fmt: skip
        kinds = set(get_layer_types_and_kwargs(model.config.get_text_config(decoder=True))[0])
        if kinds - _ATTENTION:
            raise ConfigError(
                f"{type(model).__name__} has {', '.join(sorted(kinds - _ATTENTION))}; only attention layers are decoded in batches, use an endpoint"
            )
        self._model = model
        self._sampling = sampling
        self._eos, self._stopped = eos, stopped
        self._rows, self._prefill_tokens, self._cache_tokens = rows, prefill_tokens, cache_tokens
        # Moving all the memory does not pay for one free place.
        self._slack = max(1, rows // 8)
        # The last column alone is no contiguous matrix: torch would then copy the head's weights once a row.
        model.get_output_embeddings().register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))
        self._last_only = "logits_to_keep" in inspect.signature(model.forward).parameters

    @torch.inference_mode()
    def run(self, rows: Sequence[Row], on_finished: Callable[[Row], None]) -> None:
        """Fill each row's tokens and finish; each is handed over as soon as it is finished. Raises NonFiniteError."""
        waiting = deque(sorted(rows, key=lambda row: len(row.prompt), reverse=True))
        prefix = self._prefix([row.prompt for row in rows])
        active: list[Row] = []
        memory: Slots | None = None
        while waiting or active:
            kept = [place for place, row in enumerate(active) if row.finish is None]
            gone = len(active) - len(kept)
            groups = self._admitted(waiting, [active[place] for place in kept], prefix)
            if groups or gone >= self._slack or gone >= len(kept):
                parts = [(memory, kept)] if memory is not None and kept else []
                active = [active[place] for place in kept]
                for group in groups:
                    parts.append((self._begin(group, prefix, on_finished), [place for place, row in enumerate(group) if row.finish is None]))
                    active += [row for row in group if row.finish is None]
                # The last token of a row is not in the memory yet.
                memory = joined(parts, max(len(row) for row in active) - 1) if active else None
            if memory is not None:
                self._step(active, memory, on_finished)

    def _admitted(self, waiting: deque[Row], active: Sequence[Row], prefix: Slots | None) -> list[list[Row]]:
        """Rows taken from those that wait, in groups to be computed at once; none where too few places are free."""
        if active and self._rows - len(active) < self._slack:
            return []
        shared = prefix.length if prefix is not None else 0
        longest = max((len(row.prompt) for row in active), default=0)
        groups: list[list[Row]] = []
        count = len(active)
        while waiting and count < self._rows:
            row = waiting[0]
            longest = max(longest, len(row.prompt))
            if count and (count + 1) * (longest + self._sampling.max_new_tokens) > self._cache_tokens:
                break
            if not groups or (len(groups[-1]) + 1) * (len(groups[-1][0].prompt) - shared) > self._prefill_tokens:
                groups.append([])
            groups[-1].append(waiting.popleft())
            count += 1
        return groups

    def _prefix(self, prompts: Sequence[list[int]]) -> Slots | None:
        """Memory of the beginning that all prompts share; at least one token of each stays to be computed."""
        if len(prompts) < 2:
            return None
        first, last = min(prompts), max(prompts)  # what these two share, all between them share
        most = min(min(len(prompt) for prompt in prompts) - 1, len(first))
        shared = next((place for place in range(most) if first[place] != last[place]), most)
        if shared < _LEAST_PREFIX:
            return None
        memory = Slots()
        ids = torch.tensor([first[:shared]], device=self._model.device)
        self._forward(ids, torch.arange(shared, device=ids.device)[None], torch.ones_like(ids), memory)
        return memory

    def _begin(self, group: Sequence[Row], prefix: Slots | None, on_finished: Callable[[Row], None]) -> Slots:
        """The memory of new rows, and each row's first token. Every row computes its own last `columns` tokens; what lies before them is the prefix."""
        lengths = [len(row.prompt) for row in group]
        longest = max(lengths)
        columns = longest - (prefix.length if prefix is not None else 0)
        memory = Slots() if prefix is None else behind_prefix(prefix, lengths, columns)
        device = self._model.device
        ids = torch.zeros(len(group), columns, dtype=torch.int64)
        for place, row in enumerate(group):
            own = row.prompt[-columns:]
            ids[place, columns - len(own) :] = torch.tensor(own)
        begins = longest - torch.tensor(lengths).unsqueeze(1)
        positions = (torch.arange(longest - columns, longest) - begins).clamp_(min=0)
        mask = (torch.arange(longest) >= begins).long()
        logits = self._forward(ids.to(device), positions.to(device), mask.to(device), memory)
        self._extend(group, logits, on_finished)
        return memory

    def _step(self, active: Sequence[Row], memory: Slots, on_finished: Callable[[Row], None]) -> None:
        """One more token for each row; rows that are finished run along until they are taken out."""
        device = self._model.device
        slots = memory.length + 1
        ids = torch.tensor([[row.tokens[-1]] for row in active], device=device)
        lengths = torch.tensor([[min(len(row), slots)] for row in active], device=device)
        mask = (torch.arange(slots, device=device) >= slots - lengths).long()
        logits = self._forward(ids, lengths - 1, mask, memory)
        self._extend(active, logits, on_finished)

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor, memory: Slots) -> Tensor:
        """Logits (B, V) of the last column. ids, positions int64 (B, columns); mask int64 (B, slots), the columns included."""
        options: dict[str, Any] = {"logits_to_keep": 1} if self._last_only else {}
        found = self._model(input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=memory, use_cache=True, **options)
        logits: Tensor = found.logits[:, -1]
        return logits

    def _extend(self, rows: Sequence[Row], logits: Tensor, on_finished: Callable[[Row], None]) -> None:
        limit = self._sampling.max_new_tokens
        uniforms = torch.tensor([float(row.uniforms[min(len(row.tokens), limit - 1)]) if len(row.uniforms) else 0.0 for row in rows], device=logits.device)
        chosen = choose(logits, self._sampling, uniforms)
        gains = log_probabilities(logits, chosen).tolist() if self._sampling.logprobs else [0.0] * len(rows)
        for row, token, gain in zip(rows, chosen.tolist(), gains, strict=True):
            if row.finish is not None:
                continue
            row.tokens.append(token)
            row.logprob += gain
            if token in self._eos or self._stopped(row.tokens):
                row.finish = "stop"
            elif len(row.tokens) == limit:
                row.finish = "length"
            if row.finish is not None:
                on_finished(row)
