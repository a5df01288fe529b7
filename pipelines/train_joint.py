"""Stage `joint_adapter`: a joint encoder of pictures and texts, trained on what the training interactions bring together -> its adapter.

Beside the adapter the artifact holds tables of all items (`folder_of`): the encoder's own, and those that tell whether it looks at the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import ingest, split
from pipelines.joint_config import JointAdapterConfig
from pipelines.stage import Inputs, Step, Surroundings
from pipelines.training_figures import training_figures
from recsys.artifacts.atomic import write_json
from recsys.embeddings.joint_adapter import KIND, joint_adapted, save_joint_adapter
from recsys.embeddings.joint_training import OWN, SWAPPED, train_joint
from recsys.embeddings.pair_training import Validation
from recsys.embeddings.table import EmbeddingTable
from recsys.weights.find import find_weights

VERSION = 1


def folder_of(part: str) -> str:
    """Where the artifact holds the table of `part`, such as `recsys.embeddings.joint_training.OWN`."""
    return f"table_{part}"


def run(config: JointAdapterConfig, inputs: Inputs, folder: Path, surroundings: Surroundings) -> Mapping[str, Any]:
    from recsys.evaluation.item_embeddings import RetrievalSample

    training = config.joint_training
    encoder = training.encoder
    data_split, catalog = split.load(inputs["split"]), ingest.load(inputs["data"]).catalog
    texts = catalog.texts(encoder.template)
    pictures = EmbeddingTable.load(inputs["images"].path)
    pictures.require_space(encoder.image.space().space_id)
    images = pictures.aligned_to(data_split.items)
    validation = None
    if training.validation == "retrieval":
        sample = RetrievalSample(data_split, config.validation_cases, config.seed, np.array([bool(text) for text in texts]))
        validation = Validation(sample.items, sample.measure)
    with surroundings.reporter.task(f"train {encoder.name}", "") as advance:

        def told(epoch: int, epochs: int, numbers: Mapping[str, float]) -> None:
            surroundings.reporter.say(f"  epoch {epoch}/{epochs} " + " ".join(f"{k} {v:.4f}" for k, v in numbers.items() if k != "epoch"))

        trained = train_joint(
            training,
            data_split,
            texts,
            images,
            seed=config.seed,
            states=surroundings.embedding_cache.parent / "states",
            checkpoint=surroundings.scratch,
            validation=validation,
            progress=told,
            advance=advance,
        )
    facts = save_joint_adapter(
        folder,
        trained.encoder.model.bridge,
        untrained_space=trained.base.space_id,
        split=data_split.digest,
        trained=trained.trained,
        tuning=training.tuning,
        layers=trained.layers,
        base=find_weights(encoder.model).revision(),
    )
    space = joint_adapted(trained.base, folder, facts)
    for part, values in trained.tables.items():
        # Another part of the content is another space, or its vectors could be taken for the encoder's.
        of_part = space if part == OWN else space.model_copy(update={"pooling": f"{space.pooling}; picture {part}"})
        EmbeddingTable(values, data_split.items, of_part).save(folder / folder_of(part))
    write_json(folder / "history.json", trained.history)
    own, other = trained.tables[OWN], trained.tables[SWAPPED]
    pictured = own.any(axis=1) & images.any(axis=1)
    return {
        **facts,
        "encoder": encoder.name,
        "seed": config.seed,
        "figures": {
            **training_figures(trained),
            "items_with_picture": int(pictured.sum()),
            "cosine_after_swap": round(float((own[pictured] * other[pictured]).sum(1).mean()), 6) if pictured.any() else None,
        },
    }


def joint_step(config: JointAdapterConfig, inputs: Mapping[str, str]) -> Step:
    """inputs: roles data, split and images, a table of `encoder.image`."""
    return Step(f"{KIND}:{config.joint_training.encoder.name}-{config.digest()[:8]}", VERSION, config, run, inputs)
