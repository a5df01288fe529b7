"""Options of the fused ranker."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from recsys.config import Config
from recsys.losses import LossConfig, SoftmaxLoss
from recsys.models.encoder import EncoderConfig
from recsys.models.sasrec import SasRecConfig
from recsys.training.config import TrainingConfig

Transform = Literal["none", "unit", "standardise", "whiten", "zca"]


class SignalOptions(Config):
    """How the vectors of a signal become its share of the item vectors."""

    transform: Transform = "standardise"
    """What is done to the vectors of each signal before its adapter; fitted on training items alone. none: nothing. unit: each vector
    to length 1. standardise: each dimension to mean 0 and variance 1. whiten: principal components to variance 1. zca: the same,
    turned back to the old axes (WhitenRec, ICDE 2024). All but `none` give vectors of a length of about 1."""
    components: Annotated[int, Field(ge=1)] = 128
    """Leading principal components that `whiten` and `zca` keep."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """Factor after the transform."""
    adapter: Literal["linear", "mlp", "frozen", "none"] = "linear"
    """linear: a learned matrix without bias. mlp: two layers with GELU between. frozen: nothing is learned, the vector itself, with
    zeros behind it, is the share. none: no share; the signal only initialises the IDs (`id_init`)."""
    hidden: Annotated[int, Field(ge=1)] = 128
    """Width between the layers of `mlp`."""
    adapter_std: Annotated[float, Field(gt=0)] | None = None
    """Deviation of the entries of the (last) matrix at the start; null: Xavier's, 0.07 for 384 to 64. IDs begin at some 0.01."""


class FusionConfig(SignalOptions):
    """ID-only SASRec is this with no tables. The options of signals count for all of them, but for those that `each` names."""

    encoder: EncoderConfig = SasRecConfig()
    """`kind: sasrec` (the default) or `kind: ligr`, eSASRec's."""
    loss: LossConfig = SoftmaxLoss()
    """`kind: softmax` over the whole catalogue, `sampled_softmax` or `gbce`."""
    training: TrainingConfig = TrainingConfig()
    each: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Signal -> its own `SignalOptions`."""
    use_ids: bool = True
    """False: the signals alone."""
    id_axes: Annotated[int, Field(ge=1)] | None = None
    """IDs live in so many last axes of the item vectors; null: in all. With `adapter: frozen, transform: whiten, components: dim - id_axes`
    they live in the null space of the signal (AlphaFuse, SIGIR 2025)."""
    id_init: str = "xavier"
    """"xavier", "zero", or the signal whose leading principal components, at variance 1, the IDs begin as (after LLM2SASRec, RecSys 2023)."""
    id_std: Annotated[float, Field(gt=0)] = 0.02
    """Deviation of the entries of IDs that begin as a signal."""
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the items that each training step sees as if they were cold. 0: cold items are out of distribution."""
    signal_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an item's signals that each training step leaves out; never all that it has."""
    gate: bool = True
    """Weigh the signals per item by a small net of its training count; else all weigh 1."""
    gate_presence: bool = False
    """The gate also sees which of the signals an item has."""
    projection: bool = True
    """A learned linear map between the item vectors that are read and those that are ranked."""
    head: Literal["tied", "free"] = "tied"
    """tied: the items that are ranked have the vectors of those that are read (but for `projection`). free: IDs, adapters and gate of their own."""

    temperature: Annotated[float, Field(gt=0)] | None = None
    """Score by the cosine of state and item over this: no item is better for the length of its vector, new ones least of all. Null: inner product."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target that is spread over all candidates (of `softmax` alone)."""
    id_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty of the IDs: those of rare items, whose gradients are small, shrink first, and leave their items to the signals."""
    adapter_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty of the adapters."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """What is validated and kept is a running mean of the weights, in which each step leaves so much of the past (Polyak and Juditsky
    1992). 0: the last weights."""

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if self.head == "free" and self.projection:
            raise ValueError("head: free has item vectors of its own, which projection would only turn; set projection: false")
        if self.smoothing and self.loss.kind != "softmax":
            raise ValueError(f"smoothing is of the softmax over all candidates; the loss is {self.loss.kind}")
        if self.id_axes is not None and self.id_axes > self.encoder.dim:
            raise ValueError(f"id_axes {self.id_axes} of item vectors of width {self.encoder.dim}")
        for name in self.each:
            self.of(name)
        return self

    def of(self, name: str) -> SignalOptions:
        """The options of a signal. Raises ValueError: `each` states what is none."""
        own = {option: getattr(self, option) for option in SignalOptions.model_fields}
        return SignalOptions.model_validate({**own, **self.each.get(name, {})})
