"""Prompts with vectors in them through a frozen language model: the losses of stage 2, and titles side by side behind one prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.alignment.frozen_llm import FrozenLLM
from recsys.alignment.projection import ProjectionNetwork
from recsys.alignment.prompts import USER, left_padded
from recsys.errors import NonFiniteError

_LOGITS = 64
"""Places whose logits are held at once: of 49,152 words 12 MB."""


class Reader:
    """A network and the language model it trains for."""

    def __init__(self, network: ProjectionNetwork, llm: FrozenLLM) -> None:
        self.network, self.llm = network, llm

    def embedded(self, rows: Tensor, users: Tensor, joint: Tensor) -> Tensor:
        """float (B, L, width) of prompts int64 (B, L). users: float (B, d), their states.  joint: float (n, d')."""
        vectors = self.llm.embedded(rows.clamp(min=0)).clone()
        of_user, of_item = rows == USER, rows < USER
        if of_user.any():
            vectors[of_user] = self.network.users(users)[of_user.nonzero()[:, 0]]
        if of_item.any():
            found, place = torch.unique(-2 - rows[of_item], return_inverse=True)
            vectors[of_item] = self.network.items(joint[found])[place]
        return vectors

    def read(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], users: Tensor, joint: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(last float (B, width), before float (T, width), tokens int64 (T,)): the state at each prompt's last token; the states before each token
        of the answers, the prompt's last among them; and those tokens, row by row. Nothing else is foretold."""
        rows, valid = left_padded([[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)])
        states = self.llm.states(self.embedded(rows, users, joint), valid)
        lengths = torch.tensor([len(answer) for answer in answers])
        width = rows.shape[1]
        foretold = torch.arange(width)[None] >= (width - lengths)[:, None]
        before = states[:, :-1][foretold[:, 1:]]
        last = states[torch.arange(len(rows)), width - lengths - 1]
        return last, before, rows[foretold]

    def title_loss(self, before: Tensor, tokens: Tensor) -> Tensor:
        """Scalar: mean over the tokens of their negative log-likelihood, of the softmax over the model's whole vocabulary."""
        return F.cross_entropy(self.logits(before), tokens)

    def last_states(self, prompts: Sequence[Sequence[int]], users: Tensor, joint: Tensor) -> Tensor:
        """float (B, width): the state at each prompt's last token."""
        rows, valid = left_padded(prompts)
        return self.llm.states(self.embedded(rows, users, joint), valid)[:, -1]

    @torch.inference_mode()
    def likelihoods(self, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]], users: Tensor, joint: Tensor) -> Tensor:
        """float64 (B, C): mean log-likelihood of a token of each of C answers, so that long ones are not punished for their length.

        One pass: the answers stand behind the prompt side by side, each at the positions that follow it, and see the prompt and themselves alone.

        Raises:
            NonFiniteError: the model computes NaN.
        """
        rows, valid = left_padded(prompts)
        longest, count = rows.shape[1], len(options[0])
        # The last token of an answer is foretold and not read.
        flat = max(sum(len(option) - 1 for option in each) for each in options)
        ids = torch.zeros(len(rows), longest + flat, dtype=torch.int64)
        ids[:, :longest] = rows
        owner = torch.full((len(rows), flat), -1)
        lengths = valid.sum(dim=1)
        positions = torch.cat([(valid.cumsum(dim=1) - 1).clamp(min=0), torch.zeros(len(rows), flat, dtype=torch.int64)], dim=1)
        places: list[tuple[int, int, int, int]] = []  # row, column before, token, option
        for row, each in enumerate(options):
            column = longest
            for number, option in enumerate(each):
                stop = column + len(option) - 1
                ids[row, column:stop] = torch.tensor(option[:-1], dtype=torch.int64)
                owner[row, column - longest : stop - longest] = number
                positions[row, column:stop] = lengths[row] + torch.arange(len(option) - 1)
                places += [(row, longest - 1 if not depth else column + depth - 1, token, number) for depth, token in enumerate(option)]
                column = stop
        states = self.llm.masked_states(self.embedded(ids, users, joint), self._hidden(valid, owner), positions)
        row, before, token, number = torch.tensor(places).T
        gains = self._gains(states[row, before], token)
        total = torch.zeros(len(rows), count, dtype=torch.float64).index_put((row, number), gains, accumulate=True)
        tokens = torch.zeros_like(total).index_put((row, number), torch.ones_like(gains), accumulate=True)
        return total / tokens

    def _gains(self, states: Tensor, tokens: Tensor) -> Tensor:
        """float64 (T,)."""
        parts = []
        for some, wanted in zip(torch.split(states, _LOGITS), torch.split(tokens, _LOGITS), strict=True):
            logits = self.logits(some)
            parts.append((logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(dim=1)).double())
        gains = torch.cat(parts)
        if not torch.isfinite(gains).all():
            raise NonFiniteError("the language model computes NaN or infinity for a title; lower the learning rate that the projections were trained with")
        return gains

    def logits(self, states: Tensor) -> Tensor:
        """float (..., V)."""
        return self.llm.normed(self.network.readout(states)) @ self.llm.outputs.T

    @staticmethod
    def _hidden(valid: Tensor, owner: Tensor) -> Tensor:
        """bool (B, T, T): True where a query may not look at a key. Answers stand in the order of their tokens, so that earlier is seen."""
        prompt, total = valid.shape[1], valid.shape[1] + owner.shape[1]
        seen = torch.ones(total, total, dtype=torch.bool).tril()[None].repeat(len(valid), 1, 1)
        seen[:, :, :prompt] &= valid[:, None, :]
        seen[:, prompt:, prompt:] &= owner[:, :, None] == owner[:, None, :]
        # A padded column looks at itself: a row of nothing would be NaN.
        return ~(seen | torch.eye(total, dtype=torch.bool)[None])
