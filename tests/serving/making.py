"""A small published model with real parts and random weights: serving does not care how good a model is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recsys.artifacts.artifact import Artifact, Manifest, write_artifact
from recsys.data.catalog import ItemCatalog
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.content import of_texts
from recsys.embeddings.hashed import HashedEncoder
from recsys.heads.config import FusionConfig
from recsys.heads.fusion import FusedRanker
from recsys.heads.network import FusionNetwork
from recsys.heads.signals import SignalTransform
from recsys.models.sasrec import SasRecConfig
from recsys.serving.bundle import Bundle, load_bundle, save_bundle
from recsys.serving.recommender import Recommender
from recsys.types import FloatArray
from tests.serving.loaders import load_hashed

N_ITEMS, N_USERS, DIM, TEXT_DIM = 40, 12, 16, 8
TEMPLATE = "{title}"
ODD_ID = 'odd/<b>"&é 😀'
UNSCORABLE = "i39"


def encoder() -> HashedEncoder:
    return HashedEncoder(TEXT_DIM, template=TEMPLATE)


class Hashed:
    """An `ItemEncoder` in this process."""

    def encode(self, config: Mapping[str, Any], texts: Sequence[str]) -> tuple[str, FloatArray]:
        loaded = load_hashed(config)
        return loaded.space.space_id, loaded.encode(of_texts(texts))


def catalog() -> ItemCatalog:
    ids = [f"i{n}" for n in range(N_ITEMS)]
    ids[7] = ODD_ID
    titles = [f"title {n} of the film" for n in range(N_ITEMS)]
    titles[7] = "<script>alert(1)</script>\x1b[2J"
    # The last item has neither text nor interactions.
    titles[-1] = ""
    return ItemCatalog(pl.DataFrame({"item_id": ids, "title": titles, "categories": [["drama"]] * N_ITEMS}))


def ranker(seed: int = 0) -> FusedRanker:
    config = FusionConfig(encoder=SasRecConfig(dim=DIM, blocks=1, max_length=10, dropout=0.0))
    vectors = encoder().encode(of_texts(catalog().texts(TEMPLATE)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FusionNetwork(config, N_ITEMS, {"text": TEXT_DIM})
    counts = torch.arange(N_ITEMS, 0, -1).float() - 1
    present = torch.stack([counts > 0, torch.from_numpy((vectors != 0).any(axis=1))], dim=1)
    with torch.no_grad():
        components = network.components(network.ids.weight, {"text": torch.from_numpy(vectors)}, present, counts)
    identity = SignalTransform(torch.zeros(TEXT_DIM), None)
    return FusedRanker(config, network, components, present.any(dim=1).numpy(), {"text": identity}, {"text": encoder().space.space_id})


def users() -> Vocabulary:
    return Vocabulary([f"u{n}" for n in range(N_USERS)])


def histories() -> Sequences:
    generator = np.random.default_rng(3)
    return Sequences.of_rows([generator.permutation(N_ITEMS - 1)[: 3 + n % 5] for n in range(N_USERS)])


def bundle(folder: Path, *, name: str = "small", seed: int = 0) -> Artifact:
    def write(target: Path) -> Mapping[str, Any]:
        return save_bundle(
            target,
            name=name,
            ranker=ranker(seed),
            catalog=catalog(),
            users=users(),
            histories=histories(),
            encoders={"text": {"dim": TEXT_DIM, "template": TEMPLATE}},
            split_digest="abc",
            metrics={"ndcg@10": 0.1},
        )

    return write_artifact(folder, Manifest(kind="bundle", key=f"{seed:064d}", config_hash="c"), write)


def recommender(folder: Path) -> Recommender:
    return Recommender(load_bundle(bundle(folder / "bundle").path), load_encoder=load_hashed)


def loaded(folder: Path, seed: int = 0) -> Bundle:
    return load_bundle(bundle(folder / f"bundle-{seed}", seed=seed).path)
