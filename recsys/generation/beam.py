"""Beam search over the titles of a catalogue, with a key-value memory.

The beams of a row share the memory of its prompt: each step appends one token a beam to the row, and a mask lets a beam see the
prompt and its own ancestors alone. Nothing is copied or put in another order, whichever beams survive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers.cache_utils import get_layer_types_and_kwargs

from recsys.errors import ConfigError, NonFiniteError
from recsys.generation.slots import Slots
from recsys.generation.trie import TitleTrie
from recsys.types import IntArray


@dataclass(frozen=True)
class TitleHead:
    """embeddings: float (V', d), what the model reads for each token of the titles' vocabulary.
    logits: last hidden states float (..., d) -> (..., V')."""

    embeddings: Tensor
    logits: Callable[[Tensor], Tensor]


Scores = npt.NDArray[np.float64]
_Found = list[tuple[float, int]]
"""(log-probability, leaf) of the titles that a row has come to the end of, best first."""


class BeamSearch:
    """width: beams a row, and titles wanted of it.

    A title's score is the sum of the log-probabilities of its tokens and its end, of the softmax over the vocabulary of the titles;
    it is not renormalised over what the trie allows, so that it is the title's own likelihood. It only falls with each token, hence a
    row is finished when its `width`-th title is no worse than its best beam. With as many beams as titles the search is exact.

    Raises:
        ConfigError: a model with other memory than full attention.
    """

    def __init__(self, body: Any, head: TitleHead, trie: TitleTrie, *, width: int = 10) -> None:
        kinds = set(get_layer_types_and_kwargs(body.config.get_text_config(decoder=True))[0])
        if kinds - {"full_attention"}:
            raise ConfigError(f"{type(body).__name__} has {', '.join(sorted(kinds))}; beams share one memory, which needs full attention in every layer")
        self._body, self._head, self._trie, self._width = body, head, trie, width

    @torch.inference_mode()
    def run(self, vectors: Tensor, valid: Tensor, forbidden: Sequence[set[int]] | None = None) -> list[list[tuple[int, float]]]:
        """For each row the leaves of the trie and their log-probabilities, best first; at most `width`.

        vectors: float (B, L, d), the prompts as the model reads them, padding on the left.  valid: bool (B, L).
        forbidden: leaves that a row is not to be given.

        Raises:
            NonFiniteError: the model computes NaN.
        """
        rows, width = len(vectors), self._width
        forbidden = forbidden or [set() for _ in range(rows)]
        memory = Slots()
        lengths = valid.sum(dim=1)
        positions = (valid.cumsum(dim=1) - 1).clamp(min=0)
        states = self._body(inputs_embeds=vectors, attention_mask=valid.long(), position_ids=positions, past_key_values=memory, use_cache=True)
        # One beam a row at the beginning: the root.
        gains = self._log_probabilities(states.last_hidden_state[:, -1:])
        nodes = np.zeros((rows, 1), dtype=np.int64)
        scores = np.zeros((rows, 1))
        ancestors = torch.zeros(rows, 1, 0, dtype=torch.bool)
        found: list[_Found] = [[] for _ in range(rows)]
        depth = 0
        while True:
            parents, tokens, nodes, scores = self._advance(nodes, scores, gains, found, forbidden)
            if not (nodes >= 0).any():
                break
            # Each beam sees what its parent saw, and itself.
            inherited = ancestors.gather(1, parents[:, :, None].expand(-1, -1, ancestors.shape[2]))
            ancestors = torch.cat([inherited, torch.eye(width, dtype=torch.bool).expand(rows, -1, -1)], dim=2)
            seen = torch.cat([valid[:, None, :].expand(-1, width, -1), ancestors], dim=2)
            mask = torch.zeros(seen.shape, dtype=vectors.dtype).masked_fill(~seen, torch.finfo(vectors.dtype).min)[:, None]
            places = (lengths + depth)[:, None].expand(-1, width)
            inputs = self._head.embeddings[tokens]
            step = self._body(inputs_embeds=inputs, attention_mask=mask, position_ids=places, past_key_values=memory, use_cache=True)
            gains = self._log_probabilities(step.last_hidden_state)
            depth += 1
        return [[(leaf, score) for score, leaf in row[:width]] for row in found]

    def _log_probabilities(self, states: Tensor) -> Scores:
        """float64 (B, K, V')."""
        logits = self._head.logits(states).double()
        if not torch.isfinite(logits).all():
            raise NonFiniteError("the language model computes NaN or infinity while it generates titles; lower the learning rate it was trained with")
        gains: Scores = torch.log_softmax(logits, dim=-1).numpy()
        return gains

    def _advance(
        self, nodes: IntArray, scores: Scores, gains: Scores,
        found: list[_Found], forbidden: Sequence[set[int]],
    ) -> tuple[Tensor, Tensor, IntArray, Scores]:  # fmt: skip
        """(parents, tokens, nodes, scores), all (B, width), of the beams that go on; a node of -1 is a beam that does not."""
        rows, width = len(nodes), self._width
        parents, tokens = np.zeros((rows, width), dtype=np.int64), np.zeros((rows, width), dtype=np.int64)
        chosen, kept = np.full((rows, width), -1, dtype=np.int64), np.full((rows, width), -np.inf)
        for row in range(rows):
            alive = np.flatnonzero(nodes[row] >= 0)
            if not len(alive):
                continue
            owners, edges = self._trie.expanded(nodes[row, alive])
            beams = alive[owners]
            token, target = self._trie.tokens[edges], self._trie.targets[edges]
            total = scores[row, beams] + gains[row, beams, token]
            ended = target < 0
            for leaf, score in zip((-1 - target[ended]).tolist(), total[ended].tolist(), strict=True):
                if leaf not in forbidden[row]:
                    found[row].append((score, leaf))
            found[row].sort(key=lambda title: (-title[0], title[1]))
            going = np.flatnonzero(~ended)
            # Equal scores: the earlier beam, then the smaller token, as the edges stand.
            best = going[np.argsort(-total[going], kind="stable")][:width]
            if len(best) and len(found[row]) >= width and found[row][width - 1][0] >= total[best[0]]:
                continue
            parents[row, : len(best)], tokens[row, : len(best)] = beams[best], token[best]
            chosen[row, : len(best)], kept[row, : len(best)] = target[best], total[best]
        return torch.from_numpy(parents), torch.from_numpy(tokens), chosen, kept
