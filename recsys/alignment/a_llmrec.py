"""`ALLMRec` (KDD 2024): users and items of a frozen recommender as tokens of a frozen language model, in three uses.

Rank the catalogue by the state at the prompt's last token (it is a Scorer and Backbone), rank candidates by the likelihood of their titles, and
write (`recsys.alignment.language`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor

from recsys.alignment.aligned import Aligned
from recsys.alignment.config import ProjectionConfig
from recsys.alignment.frozen_llm import FrozenLLM
from recsys.alignment.projection import ProjectionNetwork
from recsys.alignment.prompts import Prompts
from recsys.alignment.reading import Reader
from recsys.artifacts.atomic import read_json, write_bytes, write_json
from recsys.errors import ArtifactError, ConfigError, DataError, SpaceMismatchError
from recsys.heads.dot import HeadedScorer
from recsys.rng import numpy_generator
from recsys.types import BoolArray, FloatArray, IntArray, Queries

FORMAT = 1
_ROWS = 16
"""Prompts that are read at once."""
_WEIGHTS, _FACTS = "projection.safetensors", "projection.json"


class ALLMRec:
    """A fitted Scorer and Backbone. Immutable; the items are projected once.

    aligned: stage 1.  llm: frozen.  prompts: of the same tokenizer and of aligned's items.  joint: float32 (n, d'), what stands for an item; see `joint_of`.
    """

    def __init__(self, network: ProjectionNetwork, config: ProjectionConfig, aligned: Aligned, llm: FrozenLLM, prompts: Prompts, joint: FloatArray) -> None:
        self.config, self.aligned, self.llm, self.prompts = config, aligned, llm, prompts
        self.network = network.eval().requires_grad_(False)
        self._reader, self._joint = Reader(network, llm), torch.from_numpy(joint.copy())
        self._items: FloatArray | None = None
        if config.catalogue_weight:
            with torch.inference_mode():
                own: FloatArray = network.ranking_items(network.items(self._joint)).numpy()
            self._items = np.concatenate([aligned.items(), own], axis=1) if config.on_backbone else own.copy()
            self._items.flags.writeable = False
        self._scorer = HeadedScorer(self)

    @property
    def n_items(self) -> int:
        return self.aligned.n_items

    @property
    def item_digest(self) -> str | None:
        return self.aligned.item_digest

    @property
    def joint(self) -> Tensor:
        return self._joint

    def scorable_items(self) -> BoolArray:
        """Items with training interactions or a text."""
        return self.aligned.scorable_items()

    def items(self) -> FloatArray:
        """float32 (n, d + k), read-only: the vectors of stage 1 beside the projected ones (or these alone, without `on_backbone`).

        Raises:
            ConfigError: trained without `catalogue_weight`, so that it ranks titles alone.
        """
        if self._items is None:
            raise ConfigError("catalogue_weight: 0 trained no ranking of the catalogue; rank candidates by `title_scores`, or train with it")
        return self._items

    def represent(self, queries: Queries) -> FloatArray:
        """float32 (B, d + k): the frozen model's states beside those of the language model at the prompt's last token."""
        self.items()
        self._require_known(queries.histories)
        users = self.aligned.represent(queries)
        own = np.zeros((len(queries), self.config.catalogue_dim), dtype=np.float32)
        prompts = [self.prompts.recommend(history) for history in queries.histories]
        # By length: a long prompt does not make all others long.
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        with torch.inference_mode():
            for start in range(0, len(order), _ROWS):
                rows = order[start : start + _ROWS]
                last = self._reader.last_states([prompts[row] for row in rows], torch.from_numpy(users[rows]), self._joint)
                own[rows] = self.network.ranking_states(last).numpy()
        return np.concatenate([users, own], axis=1) if self.config.on_backbone else own

    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray:
        """float32 (B, C) = represent @ items.T."""
        return self._scorer.score(queries, item_nums)

    def score_into(self, queries: Queries, item_nums: IntArray, out: FloatArray) -> None:
        """`score`, written into `out` float32 (B, C)."""
        self._scorer.score_into(queries, item_nums, out)

    def title_scores(self, queries: Queries, candidates: IntArray) -> npt.NDArray[np.float64]:
        """float64 (B, C): mean log-likelihood of a token of the title of each of `candidates` int64 (B, C).

        Where the model was trained on prompts that name candidates, these do, in the order of their numbers, which says nothing of the target.

        Raises:
            NonFiniteError: the model computes NaN.
        """
        self._require_known(queries.histories)
        named = [sorted(row) if self.config.candidates else [] for row in candidates.tolist()]
        prompts = [self.prompts.recommend(history, offered) for history, offered in zip(queries.histories, named, strict=True)]
        options = [[self.prompts.answer(item) for item in row] for row in candidates.tolist()]
        scores = np.zeros(candidates.shape)
        users = torch.from_numpy(self.aligned.represent(queries))
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            found = self._reader.likelihoods([prompts[row] for row in rows], [options[row] for row in rows], users[rows], self._joint)
            scores[rows] = found.numpy()
        return scores

    def title_loss(self, queries: Queries, targets: IntArray) -> float:
        """Mean over the requests of the negative mean log-likelihood of a token of the target's title; lower is better."""
        return -float(self.title_scores(queries, targets[:, None]).mean())

    def state_of(self, history: IntArray) -> Tensor:
        """float (1, d): the frozen recommender's state of one user."""
        self._require_known([history])
        return torch.from_numpy(self.aligned.represent(Queries.of_history(history)))

    @property
    def reader(self) -> Reader:
        return self._reader

    def _require_known(self, histories: Sequence[IntArray]) -> None:
        for history in histories:
            if len(history) and (history.min() < 0 or history.max() >= self.n_items):
                raise DataError(f"history holds item_num {int(history.min())}..{int(history.max())}; this model knows 0..{self.n_items - 1}; leave others out")

    @property
    def digest(self) -> str:
        """sha256 of the trained weights and of what they stand on."""
        running = hashlib.sha256(f"{self.aligned.digest}/{self.llm.digest}/{self.prompts.digest}/{self.config.digest()}".encode())
        for name, value in sorted(self.network.state_dict().items()):
            running.update(name.encode() + value.numpy().astype("<f4").tobytes())
        return running.hexdigest()

    def save(self, folder: Path) -> None:
        """projection.safetensors and projection.json; stage 1 and the language model are artifacts of their own."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()} | {"joint": self._joint}
        write_bytes(folder / _WEIGHTS, safetensors.torch.save({name: value.detach().clone().contiguous() for name, value in tensors.items()}))
        facts = {"format": FORMAT, "config": self.config.model_dump(mode="json"), "digest": self.digest}
        write_json(folder / _FACTS, facts | {"aligned": self.aligned.digest, "language_model": self.llm.digest, "prompts": self.prompts.digest})

    @classmethod
    def load(cls, folder: Path, aligned: Aligned, titles: Sequence[str], *, llm: FrozenLLM | None = None, seed: int = 0) -> Self:
        """llm: where it is loaded already.  seed: of `start: random`.

        Raises:
            ArtifactError: files missing or of another version.  SpaceMismatchError: another stage 1, language model, or other titles.
            ConfigError: the language model is not found.
        """
        try:
            facts = read_json(folder / _FACTS)
            tensors = safetensors.torch.load((folder / _WEIGHTS).read_bytes())
        except FileNotFoundError as error:
            raise ArtifactError(f"{folder}: no saved projection ({Path(error.filename).name} is missing)") from None
        if facts["format"] != FORMAT:
            raise ArtifactError(f"{folder}: projection format {facts['format']}, this code reads {FORMAT}")
        config = ProjectionConfig.parse(facts["config"], source=str(folder))
        llm = llm or FrozenLLM.load(config, seed)
        prompts = prompts_of(config, llm, titles)
        for noun, stated, given in (
            ("stage 1", facts["aligned"], aligned.digest),
            ("language model", facts["language_model"], llm.digest),
            ("prompts and titles", facts["prompts"], prompts.digest),
        ):
            if stated != given:
                raise SpaceMismatchError(f"{folder}: projected with {noun} {stated[:12]}, given was {given[:12]}; give what it was fitted on")
        joint: FloatArray = tensors["joint"].numpy()
        network = network_of(config, aligned, llm)
        network.load_state_dict({name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")})
        return cls(network, config, aligned, llm, prompts, joint)


def prompts_of(config: ProjectionConfig, llm: FrozenLLM, titles: Sequence[str]) -> Prompts:
    """Raises ConfigError: prompts that may be longer than what the language model can count."""
    prompts = Prompts(config.prompt, llm.tokenizer, titles, user_vector=config.user_vector, item_vectors=config.item_vectors != "none")
    needed = prompts.longest + config.candidates * (config.prompt.title_tokens + 4)
    if 0 < llm.positions < needed:
        raise ConfigError(
            f"{config.model}: a prompt may take {needed} positions, the model has {llm.positions}; lower history_items, title_tokens or candidates"
        )
    return prompts


def network_of(config: ProjectionConfig, aligned: Aligned, llm: FrozenLLM) -> ProjectionNetwork:
    return ProjectionNetwork(config, aligned.backbone.dim, aligned.joint().shape[1], llm.width, llm.scale)


def joint_of(config: ProjectionConfig, aligned: Aligned, seed: int) -> FloatArray:
    """float32 (n, d'): e_i of warm items and q_i of the others; with `item_vectors: random` noise of their size."""
    joint = aligned.joint()
    if config.item_vectors != "random":
        return joint
    noise = numpy_generator(seed, "random joint vectors").standard_normal(joint.shape)
    return np.asarray(noise * np.sqrt(np.square(joint).mean()), dtype=np.float32)
