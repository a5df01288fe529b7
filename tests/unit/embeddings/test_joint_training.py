"""Training of a joint encoder: a signal planted in pictures alone is learned, the adapter gives the trained vectors, a kill changes nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys.artifacts.artifact import Manifest, write_artifact
from recsys.data.interactions import Interactions
from recsys.data.pairs import PairConfig
from recsys.data.split import Split, SplitConfig, make_split
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.adapter import LayersTuning, LoraTuning
from recsys.embeddings.content import Content
from recsys.embeddings.image import ImageEncoder
from recsys.embeddings.image_config import ImageEncoderConfig
from recsys.embeddings.joint import JointEncoder, JointEncoderConfig, words_space
from recsys.embeddings.joint_adapter import KIND, joint_adapted, save_joint_adapter
from recsys.embeddings.joint_training import ABSENT, ALONE, OWN, SWAPPED, JointTrainingConfig, TrainedJoint, swapped, train_joint
from recsys.embeddings.pair_training import Validation
from recsys.errors import ConfigError
from recsys.testing.language_models import tiny_model
from recsys.testing.vision_models import picture, tiny_vision_model
from recsys.training.config import TrainingConfig
from recsys.training.contrastive import ContrastiveConfig
from recsys.types import FloatArray
from recsys.weights.find import find_weights

N = 16
"""Item 2k and item 2k + 1 are bought together; the texts are all alike."""
TEXTS = ["a film"] * N
PICTURES = [picture(number) for number in range(N)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("joint")
    return {"text": tiny_model(folder / "llm", "llama"), "image": tiny_vision_model(folder / "clip", "clip")}


@pytest.fixture(scope="module")
def images(models: dict[str, str]) -> FloatArray:
    return ImageEncoder.load(image_config(models)).encode([Content("", data) for data in PICTURES])


@pytest.fixture(scope="module")
def split() -> Split:
    """Sixteen users a couple, whose items they have beside each other in training; validation and test are two more items each."""
    ids = Vocabulary([f"i{k}" for k in range(N)])
    events = []
    for user in range(16 * N // 2):
        couple = user % (N // 2)
        others = [2 * ((couple + 1 + user % 3) % (N // 2)), 2 * ((couple + 2) % (N // 2)) + 1]
        row = [2 * couple, 2 * couple + 1] if user % 2 else [2 * couple + 1, 2 * couple]
        events += [(f"u{user}", f"i{item}", time) for time, item in enumerate([*row, *others])]
    return make_split(SplitConfig(), Interactions.of_frame(pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row"), ids))


def image_config(models: dict[str, str]) -> ImageEncoderConfig:
    return ImageEncoderConfig(name="picture", model=models["image"])


def config_of(models: dict[str, str], **changes: Any) -> JointTrainingConfig:
    options = {"layers": 2, "image_tokens": 2, "dtype": "float32", "template": "{title}", **changes.pop("encoder", {})}
    encoder = JointEncoderConfig(name="joint", model=models["text"], image=image_config(models), **options)
    training = TrainingConfig(epochs=changes.pop("epochs", 3), patience=99, batch_size=12, learning_rate=0.015, betas=(0.9, 0.999))
    values = {"steps": 6, "pairs": PairConfig(window=1), "loss": ContrastiveConfig(temperature=0.1), "tuning": LoraTuning(rank=4), **changes}
    return JointTrainingConfig(encoder=encoder, training=training, chunk_tokens=512, **values)


def couples_found(vectors: FloatArray) -> float:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return float((scores.argmax(1) == np.arange(N) ^ 1).mean())


COUPLES = Validation(np.arange(N, dtype=np.int64), couples_found)


def run(config: JointTrainingConfig, split: Split, images: FloatArray, folder: Path, **options: Any) -> TrainedJoint:
    return train_joint(config, split, options.pop("texts", TEXTS), images, seed=3, states=folder / "states", validation=COUPLES, **options)


def saved(path: Path, trained: TrainedJoint, config: JointTrainingConfig, split: Split) -> tuple[Path, dict[str, Any]]:
    facts: dict[str, Any] = {}

    def write(folder: Path) -> dict[str, Any]:
        facts.update(
            save_joint_adapter(
                folder, trained.encoder.model.bridge, untrained_space=trained.base.space_id, split=split.digest, trained=trained.trained,
                tuning=config.tuning, layers=trained.layers, base=find_weights(config.encoder.model).revision(),
            )
        )  # fmt: skip
        (folder / "more.txt").write_text("what lies beside the weights is not part of the space")
        return facts

    return write_artifact(path, Manifest(KIND, "key", ""), write).path, facts


@pytest.mark.parametrize("tuning", [LoraTuning(rank=4), LayersTuning(), None], ids=["lora", "layers", "bridge alone"])
def test_couples_come_together_by_their_pictures(
    tuning: LoraTuning | LayersTuning | None, models: dict[str, str], images: FloatArray, split: Split, tmp_path: Path
) -> None:
    """The texts are equal: without the picture, or with another's, nothing is found. The adapter gives what was trained."""
    config = config_of(models, tuning=tuning, epochs=8, steps=15)
    trained = run(config, split, images, tmp_path)
    tables = trained.tables
    assert couples_found(tables[OWN]) > 0.8 and couples_found(tables[ALONE]) > 0.8
    assert couples_found(tables[SWAPPED]) < 0.5 and np.ptp(tables[ABSENT], axis=0).max() < 1e-5
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    path, facts = saved(tmp_path / "adapter", trained, config, split)
    loaded = JointEncoder.load(config.encoder.model_copy(update={"adapter": path}))
    assert loaded.space == joint_adapted(trained.base, path, facts) and loaded.space.split_hash == split.digest
    both, alone = loaded.encode_both([Content(text, data) for text, data in zip(TEXTS, PICTURES, strict=True)])
    assert (both * tables[OWN]).sum(1).min() > 0.999, "but for the stored states' bf16"
    assert alone is not None and (alone * tables[ALONE]).sum(1).min() > 0.999


def test_without_the_measures_there_is_no_vector_of_the_picture_alone(models: dict[str, str], images: FloatArray, split: Split, tmp_path: Path) -> None:
    trained = run(config_of(models, encoder={"two_embeddings": False, "late_fusion": False}, epochs=1), split, images, tmp_path)
    assert set(trained.tables) == {OWN, ABSENT, SWAPPED} and trained.encoder.model.bridge.fusion is None


def test_a_killed_training_resumes_to_the_same(models: dict[str, str], images: FloatArray, split: Split, tmp_path: Path) -> None:
    config = config_of(models, loss=ContrastiveConfig(temperature=0.1, learn_temperature=True))
    whole = run(config, split, images, tmp_path, checkpoint=tmp_path / "whole", checkpoint_seconds=0)

    def kill(done: int, total: int, numbers: dict[str, float]) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, split, images, tmp_path, checkpoint=tmp_path / "killed", checkpoint_seconds=0, progress=kill)
    resumed = run(config, split, images, tmp_path, checkpoint=tmp_path / "killed", checkpoint_seconds=0)
    assert resumed.history == whole.history and (whole.lower_items, resumed.lower_items) == (1, 0), "equal texts have one state"
    for name, table in whole.tables.items():
        np.testing.assert_array_equal(resumed.tables[name], table)


def test_states_of_the_words_are_shared_by_what_differs_above_them(models: dict[str, str]) -> None:
    base = config_of(models).encoder
    own = words_space(base).space_id
    for update in ({"image_tokens": 4}, {"late_fusion": False}, {"image": base.image.model_copy(update={"pooling": "mean"})}):
        other = base.model_copy(update=update)
        assert words_space(other).space_id == own and other.space().space_id != base.space().space_id
    for update in ({"two_embeddings": False}, {"template": "{title}."}, {"max_length": 64}, {"dtype": "bfloat16"}):
        assert words_space(base.model_copy(update=update)).space_id != own


def test_items_without_text_or_picture(models: dict[str, str], images: FloatArray, split: Split, tmp_path: Path) -> None:
    some, texts = images.copy(), [*TEXTS[:-1], ""]
    some[0] = 0
    validation = Validation(np.arange(N - 1, dtype=np.int64), lambda vectors: float(np.isfinite(vectors).all()))
    trained = train_joint(config_of(models, epochs=1, steps=1), split, texts, some, seed=3, states=tmp_path, validation=validation)
    tables = trained.tables
    assert not any(table[-1].any() for table in tables.values()) and tables[OWN][0].any() and not tables[ALONE][0].any()
    np.testing.assert_array_equal(tables[OWN][0], tables[ABSENT][0])


def test_swapped_pictures_are_all_of_others() -> None:
    values = np.arange(1, 13, dtype=np.float32).reshape(6, 2)
    values[2] = 0
    found = swapped(values, 0)
    assert not found[2].any() and not (found[[0, 1, 3, 4, 5]] == values[[0, 1, 3, 4, 5]]).any()
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(values, axis=0))
    np.testing.assert_array_equal(found, swapped(values, 0))


def test_configs_that_cannot_be_trained(models: dict[str, str], images: FloatArray, split: Split, tmp_path: Path) -> None:
    good = config_of(models).model_dump(mode="json")
    with pytest.raises(ConfigError, match="has no adapter yet"):
        JointTrainingConfig.parse({**good, "encoder": {**good["encoder"], "adapter": "somewhere"}})
    with pytest.raises(ConfigError, match="needs a measure"):
        train_joint(config_of(models), split, TEXTS, images, seed=0, states=tmp_path)
    with pytest.raises(ValueError, match="3 pictures for 16 items"):
        train_joint(config_of(models), split, TEXTS, images[:3], seed=0, states=tmp_path, validation=COUPLES)


def test_dtype_bf16_trains_too(models: dict[str, str], images: FloatArray, split: Split, tmp_path: Path) -> None:
    trained = run(config_of(models, encoder={"dtype": "bfloat16"}, epochs=1, steps=2), split, images, tmp_path)
    assert trained.tables[OWN].dtype == np.float32 and np.isfinite(trained.history[-1]["loss"])
    assert all(tensor.dtype == torch.float32 for tensor in (trained.trained or {}).values())
