"""Options of the networks over graphs. Apart from them, for torch-geometric takes seconds to import."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from recsys.config import Config
from recsys.training.config import TrainingConfig


class GnnConfig(Config):
    kind: Literal["gcn", "sage", "gat", "lightgcn", "mlp"] = "gcn"
    """gcn (Kipf and Welling, ICLR 2017), sage (GraphSAGE with the mean, Hamilton et al., NeurIPS 2017), gat (Velickovic et al., ICLR
    2018), lightgcn (He et al., SIGIR 2020: the mean of layers 0..K, without weights or activations), mlp (edges are not looked at)."""
    layers: Annotated[int, Field(ge=1)] = 2
    """K: a node sees K steps far."""
    hidden: Annotated[int, Field(ge=1)] = 128
    """Width between the layers; of gat all heads together. lightgcn has none."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the input of each layer; of gat's attention too."""
    heads: Annotated[int, Field(ge=1)] = 1
    """gat: side by side between the layers, their mean at the end."""
    norm: Literal["none", "batch", "layer"] = "none"
    """After each layer but the last, before the ReLU."""

    @model_validator(mode="after")
    def _of_the_kind(self) -> Self:
        if self.heads != 1 and self.kind != "gat":
            raise ValueError(f"heads is an option of gat; leave it out with {self.kind}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if self.norm != "none" and self.kind == "lightgcn":
            raise ValueError("lightgcn has no layer to normalise; leave norm out")
        return self


class LinkConfig(Config):
    loss: Literal["softmax", "bpr"] = "softmax"
    """softmax: over the items of training, or `negatives` of them; bpr: against one of them (Rendle et al., 2009)."""
    negatives: Annotated[int, Field(ge=1)] = 4096
    """Of softmax: items a step, shared by the batch, drawn uniformly; all where there are no more."""
    cosine: bool = True
    """Compare directions; else inner products, in which a length can tell how popular an item is."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Of the softmax; the smaller, the more the nearest negatives count."""
    popularity: Annotated[float, Field(ge=0)] = 0.0
    """Of softmax: so many times the logarithm of an item's training count is added to its logits, in training alone: with 1 the vectors need not tell what
    is popular, which no new item could have learned from (logit adjustment, Menon et al., ICLR 2021)."""
    cold_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the items that an epoch takes for new: without edges made of interactions, and without a vector of their own.
    0: cold items are out of distribution."""
    level_new: bool = Field(default=False, exclude_if=lambda level: not level)
    """After the training, new items get so much more score that one is found as often as if its edges of interactions were known; see
    `recsys.graph.levelling`."""
    history: Annotated[int, Field(ge=1)] = 50
    """Recent items that make the user of a graph without users."""
    fanouts: tuple[Annotated[int, Field(ge=1)], ...] = (15, 10)
    """Neighbours a node that are drawn, one number a layer; of a graph beyond `full_batch_up_to`."""
    full_batch_up_to: Annotated[int, Field(ge=0)] = 2_000_000
    """Messages up to which each step passes over the whole graph."""
    training: TrainingConfig = TrainingConfig(epochs=100, patience=5, validate_every=2, batch_size=4096, learning_rate=2e-3, betas=(0.9, 0.999))
    """`batch_size` counts links."""

    @field_validator("training")
    @classmethod
    def _no_windows(cls, training: TrainingConfig) -> TrainingConfig:
        if training.sort_by_length:
            raise ValueError("sort_by_length orders windows of histories; links have none, leave it out")
        return training


class GraphEncoderConfig(Config):
    features: Literal["text", "ids"] = "text"
    """text: the tables' vectors of an item; of any other node the mean of its items. Nothing is learned for a single node, so a new one needs no training.
    ids: a learned vector a node; an item of no interactions has none and is the mean of its neighbours alone."""
    users: bool = False
    """With user nodes: a user is its node. Else the graph has items and attribute values, and a user is the mean of its recent items."""
    relations: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Factors of relations, 1 where none is given; see `recsys.graph.flat.flatten`."""
    gnn: GnnConfig = GnnConfig(kind="sage", layers=2, hidden=128, dropout=0.2)
    dim: Annotated[int, Field(ge=1)] = 64
    """Of what is learned."""
    skip: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the text itself beside what is learned: after the training the text's unit vector, times the root of this, is appended to the vector,
    so that a score is that of the network plus `skip` times the cosine of the texts. New items need it most; where the text is a signal of its own, 0."""
    link: LinkConfig = LinkConfig()

    @model_validator(mode="after")
    def _text_to_skip(self) -> Self:
        if self.skip and self.features != "text":
            raise ValueError("skip appends the text; leave it out with features: ids")
        return self
