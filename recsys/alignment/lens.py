"""Where the lens of a cut language model begins: what the layers that were cut away do to states, as far as a linear map can tell.

After Belrose et al., arXiv 2303.08112 (tuned lens), by least squares in place of gradient steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from recsys.alignment.config import ProjectionConfig
from recsys.alignment.frozen_llm import FrozenLLM
from recsys.alignment.prompts import Prompts, left_padded
from recsys.errors import DataError
from recsys.rng import numpy_generator
from recsys.types import IntArray

_ROWS = 16
_RIDGE = 1e-3
"""Of the mean of the states' variances."""


def fitted_lens(
    config: ProjectionConfig, cut: FrozenLLM, titles: Sequence[str], histories: Sequence[IntArray], targets: IntArray, *, seed: int
) -> tuple[Tensor, Tensor]:
    """(weight float32 (width, width), bias float32 (width,)): state + weight @ state + bias is close to the last state of the whole model, but for its
    length, which the norm behind it takes away.

    Fitted on `config.lens_prompts` prompts of training with their answers, in words alone; the first token, on which attention rests, is left out.
    histories, targets: of training, one of each a row.

    Raises:
        DataError: nothing to fit on.
    """
    if not len(targets):
        raise DataError("no training examples to fit the lens on")
    chosen = numpy_generator(seed, "prompts of the lens").permutation(len(targets))[: config.lens_prompts].tolist()
    words = Prompts(config.prompt, cut.tokenizer, titles, user_vector=False, item_vectors=False)
    texts = sorted(([*words.recommend(histories[row]), *words.answer(int(targets[row]))] for row in chosen), key=len)
    whole = FrozenLLM.load(config.model_copy(update={"layers": None, "dtype": "float32"}))
    seen, wanted = map(torch.cat, zip(*_states(cut, whole, texts), strict=True))
    return _least_squares(seen.double(), torch.nn.functional.rms_norm(wanted, wanted.shape[-1:]).double())


@torch.no_grad()
def _states(cut: FrozenLLM, whole: FrozenLLM, texts: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(texts), _ROWS):
        rows, valid = left_padded(texts[start : start + _ROWS])
        told = valid & (valid.cumsum(dim=1) > 1)
        yield tuple(model.states(model.embedded(rows), valid)[told] for model in (cut, whole))  # type: ignore[misc]


def _least_squares(seen: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge towards 0 of the map from `seen` (N, d) to `wanted` (N, d), less the identity."""
    mean, goal = seen.mean(dim=0), wanted.mean(dim=0)
    centred = seen - mean
    gram = centred.T @ centred
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    matrix = torch.linalg.solve(gram, centred.T @ (wanted - goal))
    return (matrix.T - torch.eye(len(mean), dtype=torch.float64)).float(), (goal - mean @ matrix).float()
