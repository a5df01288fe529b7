"""LightGCN (He et al., SIGIR 2020, arXiv 2002.02126): vectors of users and items, smoothed over their graph.

`torch_geometric.nn.models.LightGCN` computes the same and is what the tests compare with. It is not used here: autograd
through its sparse product takes twice as long as `Propagation`, and its import some seconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recsys.artifacts.atomic import read_json, write_bytes, write_json
from recsys.config import Config, digest_of
from recsys.data.sequences import Sequences
from recsys.data.split import Split
from recsys.errors import ArtifactError, DataError
from recsys.models._item_item import binary_matrix, scorable_of
from recsys.rng import derive_seed
from recsys.training.config import TrainingConfig
from recsys.training.loop import Progress, train
from recsys.types import BoolArray, FloatArray, IntArray, Queries, Scorer

FORMAT = 1
"""Of the saved files; raised when their meaning changes."""


class LightGCNConfig(Config):
    dim: Annotated[int, Field(ge=1)] = 64
    layers: Annotated[int, Field(ge=1)] = 3
    """K: a user sees items K steps away."""
    regularisation: Annotated[float, Field(ge=0)] = 1e-4
    """lambda of eq. 15, on the batch's own (layer 0) vectors; see `bpr_loss`."""
    initial_deviation: Annotated[float, Field(gt=0)] = 0.1
    """Of the normal distribution that the vectors start from, as in the authors' code."""
    training: TrainingConfig = TrainingConfig(epochs=400, patience=5, validate_every=10, batch_size=32768, learning_rate=5e-3, betas=(0.9, 0.999))
    """`batch_size` counts (user, item) pairs. Each step smooths the whole graph, so that small batches are slow."""

    @field_validator("training")
    @classmethod
    def _no_windows(cls, training: TrainingConfig) -> TrainingConfig:
        if training.sort_by_length:
            raise ValueError("sort_by_length orders windows of histories; LightGCN has none, leave it out")
        return training


@dataclass(frozen=True)
class LightGCNFit:
    """history: one dict an epoch (epoch, loss, and validation where it was validated). seconds: over all resumed runs.
    best_epoch: the epoch whose weights were kept.  capped: ended by `max_seconds`.  parameters: trained numbers.
    peak_mb: of the training, in MiB, over all resumed runs."""

    scorer: LightGCN
    history: list[dict[str, float]]
    seconds: float
    best_epoch: int
    capped: bool
    parameters: int
    peak_mb: float


class Graph:
    """The distinct (user, item) pairs of training, however often each occurs.

    users, items: int64 (E,), sorted by user, then item.  degrees: float32, of users (U,) and of items (I,).
    """

    def __init__(self, train: Sequences, n_items: int) -> None:
        matrix = binary_matrix(train, n_items)
        self.n_users, self.n_items = len(train), n_items
        self.users = torch.from_numpy(np.repeat(np.arange(self.n_users, dtype=np.int64), np.diff(matrix.indptr)))
        self.items = torch.from_numpy(matrix.indices.astype(np.int64))
        self.user_degrees = torch.bincount(self.users, minlength=self.n_users).float()
        self.item_degrees = torch.bincount(self.items, minlength=n_items).float()
        weights = (self.user_degrees[self.users] * self.item_degrees[self.items]).rsqrt()
        self._to_users = _csr(self.users, self.items, weights, (self.n_users, n_items))
        self._to_items = _csr(self.items, self.users, weights, (n_items, self.n_users))

    def smoothed(self, values: Tensor) -> Tensor:
        """One layer (eq. 3): float (U + I, d), users first, to the sums over neighbours, each / sqrt(|N_u| |N_i|)."""
        users, items = values[: self.n_users], values[self.n_users :]
        return torch.cat([self._to_users @ items, self._to_items @ users])

    def mean_of_layers(self, values: Tensor, layers: int) -> Tensor:
        """Eq. 4 and 8 with alpha_k = 1 / (K + 1): float (U + I, d), without gradient."""
        total, layer = values.clone(), values
        for _ in range(layers):
            layer = self.smoothed(layer)
            total += layer
        return total.div_(layers + 1)


class Propagation(torch.autograd.Function):
    """`Graph.mean_of_layers` with a gradient. The map is linear and symmetric, hence its own transpose."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, graph: Graph, layers: int) -> Tensor:
        ctx.graph, ctx.layers = graph, layers
        return graph.mean_of_layers(values, layers)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_output: Tensor) -> tuple[Tensor, None, None]:
        return ctx.graph.mean_of_layers(d_output, ctx.layers), None, None


class LightGCN:
    """score(u, i) = e_u . e_i, with e the mean over the layers.

    users: float32 (U, d); a row that is not finite belongs to a user without training interactions.
    items: float32 (I, d).  attachments: float32 (I, d): row i is (sum of the layers 0..K-1 of item i) / ((K + 1) sqrt(|N_i|)).
    counts: int64 (I,), training interactions.  item_digest: of the items' vocabulary, where it is known.

    A user that training knows is answered with the vector of training, whatever the history of the query. Any other user
    is attached to the trained graph as a new node with one edge to each distinct item of the history: its layer k + 1 is
    the sum over the history of layer k of i / sqrt(|H| |N_i|), hence e_u = (sum of `attachments`) / sqrt(|H|). Its own
    layer 0 is zero, the mean that training starts from, and the items do not move. For the training history of a known
    user this is exactly e_u without the share of its own layer 0. Items without training interactions are not in the graph
    and count for nothing. With no item left, the answer is that of the average user.
    """

    def __init__(self, users: FloatArray, items: FloatArray, attachments: FloatArray, counts: IntArray, *, item_digest: str | None = None) -> None:
        self._users, self._items, self._attachments, self._counts, self.item_digest = users, items, attachments, counts, item_digest
        self._known: BoolArray = np.asarray(np.isfinite(users).all(axis=1), dtype=np.bool_)
        self._average = users[self._known].astype(np.float64).mean(axis=0).astype(np.float32)

    @property
    def n_items(self) -> int:
        return len(self._items)

    def scorable_items(self) -> BoolArray:
        return scorable_of(self._counts)

    def items(self) -> FloatArray:
        return self._items

    def represent(self, queries: Queries) -> FloatArray:
        """float32 (B, d). A user_num beyond the users of training is a new user of a vocabulary that grew.

        Raises:
            DataError: a history holds a number that is no item_num of this model.
        """
        nums = np.asarray(queries.user_nums, dtype=np.int64)
        inside = (nums >= 0) & (nums < len(self._users))
        known = inside & self._known[np.where(inside, nums, 0)]
        states = np.empty((len(queries), self._items.shape[1]), dtype=np.float32)
        states[known] = self._users[nums[known]]
        states[~known] = self._attached([queries.histories[row] for row in np.flatnonzero(~known).tolist()])
        return states

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C)."""
        scores: FloatArray = self.represent(queries) @ self._items[item_nums].T
        return scores

    def score_into(self, queries: Queries, item_nums: IntArray, out: FloatArray) -> None:
        whole = len(item_nums) == self.n_items and bool((item_nums == np.arange(self.n_items)).all())
        np.matmul(self.represent(queries), (self._items if whole else self._items[item_nums]).T, out=out)

    def _attached(self, histories: list[IntArray]) -> FloatArray:
        rows = Sequences.of_rows([np.asarray(history, dtype=np.int64) for history in histories])
        if len(rows.item_nums) and (rows.item_nums.min() < 0 or rows.item_nums.max() >= self.n_items):
            raise DataError(f"a history holds a number that is no item_num of this model (0..{self.n_items - 1}); leave unknown items out")
        edges = binary_matrix(rows, self.n_items)
        degrees = edges @ (self._counts > 0).astype(np.float64)
        summed = edges @ self._attachments.astype(np.float64)
        attached: FloatArray = (summed / np.sqrt(np.maximum(degrees, 1.0))[:, None]).astype(np.float32)
        attached[degrees == 0] = self._average
        return attached

    def save(self, folder: Path) -> None:
        """lightgcn.safetensors and lightgcn.json."""
        tensors = {"users": self._users, "items": self._items, "attachments": self._attachments, "counts": self._counts}
        data = safetensors.torch.save({name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in tensors.items()})
        write_bytes(folder / "lightgcn.safetensors", data)
        write_json(folder / "lightgcn.json", {"format": FORMAT, "item_digest": self.item_digest})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises ArtifactError: files missing, or written by another version."""
        try:
            facts = read_json(folder / "lightgcn.json")
            tensors = safetensors.torch.load((folder / "lightgcn.safetensors").read_bytes())
        except FileNotFoundError as error:
            raise ArtifactError(f"{folder}: no saved LightGCN ({Path(error.filename).name} is missing)") from None
        if facts["format"] != FORMAT:
            raise ArtifactError(f"{folder}: LightGCN format {facts['format']}, this code reads {FORMAT}")
        arrays = (tensors[name].numpy() for name in ("users", "items", "attachments", "counts"))
        return cls(*arrays, item_digest=facts.get("item_digest"))  # files of before it was recorded have none


def fit_lightgcn(
    config: LightGCNConfig,
    split: Split,
    *,
    seed: int,
    checkpoint: Path | None = None,
    validate: Callable[[Scorer], float],
    progress: Progress | None = None,
    checkpoint_seconds: float = 10.0,
) -> LightGCNFit:
    """Fit on `split.train` with BPR: each distinct pair once an epoch, against one uniform negative of the same user.

    validate: higher is better; called with the model as it is after an epoch. checkpoint: folder; see `training.loop.train`.

    Raises:
        DataError: nothing to train on.  NonFiniteError: loss or validation value.  ArtifactError: another training's checkpoint.
    """
    graph = Graph(split.train, split.n_items)
    pairs = _Pairs(graph)
    generator = torch.Generator().manual_seed(derive_seed(seed, "weights"))
    values = torch.empty(graph.n_users + graph.n_items, config.dim).normal_(std=config.initial_deviation, generator=generator)
    table = nn.Embedding(graph.n_users + graph.n_items, config.dim, _weight=values)

    def run_epoch(optimiser: torch.optim.Optimizer, epoch: int) -> float:
        total = 0.0
        users, positives, negatives = pairs.of_epoch()
        for start in range(0, len(users), config.training.batch_size):
            batch = [part[start : start + config.training.batch_size] for part in (users, positives, negatives)]
            loss = bpr_loss(table.weight, graph, *batch, layers=config.layers, regularisation=config.regularisation)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.item() * len(batch[0])
        return total / len(users)

    def snapshot() -> LightGCN:
        return _scorer(table.weight.detach(), graph, config.layers, split.item_counts(), split.items.digest)

    state = train(
        table,
        run_epoch,
        lambda: validate(snapshot()),
        config.training,
        seed=seed,
        fingerprint=digest_of([config.digest(), split.digest, seed, torch.__version__]),
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
    )
    return LightGCNFit(snapshot(), state.history, state.seconds, state.best_epoch, state.capped, values.numel(), state.peak_mb)


def bpr_loss(values: Tensor, graph: Graph, users: Tensor, positives: Tensor, negatives: Tensor, *, layers: int, regularisation: float) -> Tensor:
    """Mean over the triples of -log s(e_u . (e_i - e_j)) + lambda / 2 (|u|^2 + |i|^2 + |j|^2), a scalar.

    values: float (U + I, d), layer 0, users first.  users, positives, negatives: int64 (B,) of user_num and item_num.
    Smoothed vectors are compared, those of layer 0 are regularised (eq. 15). Each triple pays for its own three vectors,
    as in the authors' code, so the weight of the penalty does not hang on the batch size.
    """
    nodes = torch.stack([users, positives + graph.n_users, negatives + graph.n_users])
    own: Tensor = F.embedding(nodes, values)  # (3, B, d)
    user, positive, negative = F.embedding(nodes, Propagation.apply(values, graph, layers)).unbind()  # type: ignore[no-untyped-call]
    compared = F.softplus((user * (negative - positive)).sum(1)).mean()
    return compared + regularisation / 2 * own.square().sum() / len(users)


class _Pairs:
    """The positives of an epoch in random order, each with a negative: an item of training that the user did not meet."""

    def __init__(self, graph: Graph) -> None:
        self._candidates = (graph.item_degrees > 0).nonzero()[:, 0]
        # Whoever met every item has no negative.
        kept = graph.user_degrees[graph.users] < len(self._candidates)
        self._users, self._items = graph.users[kept], graph.items[kept]
        self._n_items = graph.n_items
        self._met = graph.users * graph.n_items + graph.items  # sorted
        if not len(self._users):
            raise DataError("no user has both a training interaction and an item left that it did not meet: there is nothing to compare")

    def of_epoch(self) -> tuple[Tensor, Tensor, Tensor]:
        """int64 (P,) each: users, positives, negatives. Random numbers come from torch's generator."""
        order = torch.randperm(len(self._users))
        users, positives = self._users[order], self._items[order]
        negatives = self._drawn(len(users))
        again = self._is_met(users, negatives).nonzero()[:, 0]
        while len(again):
            negatives[again] = self._drawn(len(again))
            again = again[self._is_met(users[again], negatives[again])]
        return users, positives, negatives

    def _drawn(self, count: int) -> Tensor:
        return self._candidates[torch.randint(len(self._candidates), (count,))]

    def _is_met(self, users: Tensor, items: Tensor) -> Tensor:
        wanted = users * self._n_items + items
        places = torch.searchsorted(self._met, wanted).clamp_(max=len(self._met) - 1)
        return self._met[places] == wanted


def _scorer(values: Tensor, graph: Graph, layers: int, counts: IntArray, item_digest: str | None = None) -> LightGCN:
    """The vectors of layer 0 as they are now, smoothed and copied."""
    total, layer = values.clone(), values
    for number in range(layers):
        layer = graph.smoothed(layer)
        if number == layers - 1:
            below = total.clone()
        total += layer
    total /= layers + 1
    attachments = below[graph.n_users :] * graph.item_degrees.clamp(min=1).rsqrt()[:, None] / (layers + 1)
    attachments[graph.item_degrees == 0] = 0.0
    users, items = total[: graph.n_users], total[graph.n_users :]
    users[graph.user_degrees == 0] = torch.nan
    return LightGCN(users.numpy(), items.numpy(), attachments.numpy(), counts, item_digest=item_digest)


def _csr(rows: Tensor, columns: Tensor, weights: Tensor, shape: tuple[int, int]) -> Tensor:
    order = torch.argsort(rows * shape[1] + columns)
    offsets = F.pad(torch.bincount(rows, minlength=shape[0]).cumsum(0), (1, 0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(offsets, columns[order], weights[order], shape, check_invariants=True)
