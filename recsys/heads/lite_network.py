"""The trainable part of Lite-LLM4Rec: input map, recommendation LLM and head; and what its ablations put in their place."""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.embeddings.adapter import make_trainable
from recsys.embeddings.first_layers import final_norm_of, read_vectors, token_scale, without_tokens
from recsys.embeddings.norms import RMSNorm
from recsys.errors import ConfigError
from recsys.generation.beam import TitleHead
from recsys.generation.titles import Titles
from recsys.heads.adapters import make_adapter
from recsys.heads.item_projection import FreeHead, TiedHead
from recsys.heads.lite_config import LiteConfig
from recsys.heads.token_stream import Stream, stream_of, title_rows, title_table
from recsys.training.batches import PAD


class LiteNetwork(nn.Module):
    """n_items: of the catalogue.  vectors: float (n, k), the prepared item vectors, frozen; None where none are needed.
    titles: of all items; None where none are read or generated.  model: the cut causal language model, changed in place."""

    vectors: Tensor | None
    title_table: Tensor | None
    token_inputs: Tensor | None
    token_outputs: Tensor | None

    def __init__(self, config: LiteConfig, model: Any, n_items: int, vectors: Tensor | None, titles: Titles | None) -> None:
        super().__init__()
        self.config = config
        self.body: Any = model.base_model
        width, scale = int(self.body.config.hidden_size), token_scale(self.body)
        dim = config.dim or width
        tokens = torch.from_numpy(titles.vocabulary) if titles is not None else None
        generative = config.head == "generative"
        if generative and getattr(self.body.config, "final_logit_softcapping", None):
            raise ConfigError(f"{type(model).__name__} bends its logits after the head; the generative head needs one that does not")
        self.register_buffer("vectors", vectors)
        self.register_buffer("title_table", None if titles is None else title_table(titles))
        # Of the tokens only those that titles are made of are ever read or generated.
        self.register_buffer("token_inputs", None if tokens is None else self.body.get_input_embeddings()(tokens).detach().clone())
        self.register_buffer("token_outputs", None if tokens is None or not generative else model.get_output_embeddings().weight[tokens].detach().clone())
        without_tokens(self.body)
        if config.tuning is not None:
            make_trainable(self.body, config.tuning, int(self.body.config.num_hidden_layers))
        if not generative:
            # The model's own norm was learned for what its last layer puts out, not for this one's.
            name = final_norm_of(self.body)
            setattr(self.body, name, RMSNorm(nn.Parameter(torch.ones(width)), 1e-5))
        self.map = self.residual = self.out = self.head = None
        if vectors is not None:
            # Prepared vectors are of length about 1: with this deviation their maps are as large as the model's tokens.
            options = config.input_map if config.input_map.adapter_std else config.input_map.model_copy(update={"adapter_std": scale})
            self.map = make_adapter(options, vectors.shape[1], width)
            if config.residual:
                self.residual = nn.Parameter(torch.zeros(n_items, width))
        if not generative:
            self.out = nn.Linear(width, dim, bias=False)
            nn.init.xavier_normal_(self.out.weight)
            self.head = FreeHead(n_items, dim) if config.head == "free" else TiedHead(width, dim, scale)

    @classmethod
    def parameter_groups(cls, network: Self) -> list[dict[str, Any]]:
        """The language model's weights with a learning rate of their own, then all else; what is frozen in neither."""
        of_model = [p for p in network.body.parameters() if p.requires_grad]
        inside = {id(p) for p in of_model}
        others = [p for p in network.parameters() if p.requires_grad and id(p) not in inside]
        groups: list[dict[str, Any]] = [{"params": of_model, "lr": network.config.llm_learning_rate}, {"params": others}]
        return [group for group in groups if group["params"]]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.config.tuning is None:
            self.body.eval()
        return self

    def inputs(self) -> Tensor | None:
        """float (n, width), the mapped item vectors v_i as the language model reads them; None where it reads words alone."""
        if self.map is None:
            return None
        mapped: Tensor = self.map(self.vectors)
        return mapped if self.residual is None else mapped + self.residual

    def items(self, inputs: Tensor | None) -> Tensor:
        """float (n, d): what the states are multiplied with."""
        assert self.head is not None
        return self.head.items(inputs)

    def states(self, rows: Tensor, inputs: Tensor | None) -> Tensor:
        """rows int64 (B, L) of item_nums, `PAD` on the left -> float (P, d), the state after each of the P valid entries, row by row."""
        if self.config.reader == "vectors":
            assert inputs is not None
            valid = rows != PAD
            found = self._read(F.embedding(rows.clamp(min=0), inputs), valid)[valid]
        else:
            stream = self.stream(rows)
            found = self._read(self._embedded(stream.places), stream.valid)[stream.ends]
        assert self.out is not None and self.head is not None
        return self.head.states(F.dropout(self.out(found), self.config.dropout, self.training))

    def title_states(self, rows: Tensor, targets: Tensor, inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        """(states float (P, width), places int64 (P,)): before each token of a title that is to be generated, and the token.

        rows, targets: int64 (B, L), `targets[b, t]` follows `rows[b, t]`. In words, every item but the first is a target. Of vectors a
        position would each need a sequence of its own, so that one of each row is drawn.
        """
        assert self.title_table is not None
        if self.config.reader == "text":
            stream = self.stream(torch.cat([rows, targets[:, -1:]], dim=1))
            states = self._read(self._embedded(stream.places), stream.valid)
            foretold = stream.valid & ~stream.first
            return states[:, :-1][foretold[:, 1:]], stream.places[:, 1:][foretold[:, 1:]]
        assert inputs is not None
        lengths = (rows != PAD).sum(dim=1)
        drawn = (torch.rand(len(rows)) * lengths).long()  # entries cut off at the end
        picked = rows.shape[1] - 1 - drawn
        columns = torch.arange(rows.shape[1])[None] - drawn[:, None]
        history = rows.gather(1, columns.clamp(min=0)).masked_fill(columns < 0, PAD)
        places, used = title_rows(targets.gather(1, picked[:, None])[:, 0], self.title_table)
        vectors = torch.cat([F.embedding(history.clamp(min=0), inputs), self._embedded(places[:, :-1])], dim=1)
        states = self._read(vectors, torch.cat([history != PAD, used[:, 1:]], dim=1))
        return states[:, history.shape[1] - 1 :][used], places[used]

    def prompts(self, rows: Tensor, inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        """(vectors float (B, T, width), valid bool (B, T)), padded on the left: what a title is generated after."""
        if self.config.reader == "vectors":
            assert inputs is not None
            return F.embedding(rows.clamp(min=0), inputs), rows != PAD
        stream = self.stream(rows)
        return self._embedded(stream.places), stream.valid

    def title_head(self) -> TitleHead:
        assert self.token_inputs is not None and self.token_outputs is not None
        outputs = self.token_outputs
        return TitleHead(self.token_inputs, lambda states: states @ outputs.T)

    def stream(self, rows: Tensor) -> Stream:
        assert self.title_table is not None
        return stream_of(rows, self.title_table)

    def _embedded(self, places: Tensor) -> Tensor:
        assert self.token_inputs is not None
        return F.embedding(places, self.token_inputs)

    def _read(self, vectors: Tensor, valid: Tensor) -> Tensor:
        return read_vectors(self.body, F.dropout(vectors, self.config.dropout, self.training), valid)
