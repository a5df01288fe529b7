"""Adapters: what is trainable, what is written, and what a model with one merged in computes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from recsys.artifacts.artifact import Manifest, write_artifact
from recsys.embeddings.adapter import KIND, WEIGHTS, Adapter, LayersTuning, LoraTuning, adapted, make_trainable, save_adapter
from recsys.embeddings.content import of_texts
from recsys.embeddings.text import TextEncoder, TextEncoderConfig
from recsys.errors import ArtifactError, ConfigError, SpaceMismatchError
from recsys.testing.language_models import tiny_adapter

IDS = torch.tensor([[5, 9, 11, 40, 2], [7, 8, 3, 4, 6]])
MAPS = {"llama": ("q_proj", "up_proj"), "bert": ("query", "dense")}
TEXTS = of_texts(["Toy Story", "Heat"])


def plain(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
    return AutoModel.from_config(AutoConfig.for_model(kind, **sizes, **({"use_cache": False} if kind == "llama" else {}))).eval()


def states(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).last_hidden_state.clone()


def written(folder: Path, trained: dict[str, torch.nn.Parameter], tuning: LoraTuning | LayersTuning, layers: int) -> Adapter:
    manifest = Manifest(kind=KIND, key="k", config_hash="c")
    write_artifact(folder, manifest, lambda f: save_adapter(f, trained, tuning, layers, base="base", split="split"))
    return Adapter.open(folder)


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("option", ["lora", "lora with targets", "layers"])
def test_merged_into_a_fresh_model_it_gives_the_trained_states(kind: str, option: str, tmp_path: Path) -> None:
    """The trained states are those of peft's own forward, which multiplies with the two matrices each time."""
    tuning = LayersTuning() if option == "layers" else LoraTuning(rank=3, alpha=5, targets=MAPS[kind] if option == "lora with targets" else ())
    model, direction = plain(kind), torch.randn(16, generator=torch.Generator().manual_seed(9))
    before = states(model)
    trained = make_trainable(model, tuning, 2)
    torch.testing.assert_close(states(model), before, msg="nothing has moved yet")
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(3):
        optimiser.zero_grad()
        (model(input_ids=IDS).last_hidden_state * direction).mean().backward()
        optimiser.step()
    after = states(model)
    assert (after - before).abs().max() > 0.01
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
    adapter = written(tmp_path / "a", trained, tuning, 2)
    torch.testing.assert_close(states(adapter.merged_into(plain(kind))), after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("tuning", [LoraTuning(), LayersTuning()], ids=["lora", "layers"])
def test_trainable_are_the_last_layers_alone_in_float32(kind: str, tuning: LoraTuning | LayersTuning) -> None:
    model = plain(kind).bfloat16()
    trained = make_trainable(model, tuning, 1)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trainable) == len(trained) > 0
    assert all(".3." in name and p.dtype == torch.float32 for name, p in trainable.items())
    linear_maps = 7 if kind == "llama" else 6
    assert len(trained) == (2 * linear_maps if isinstance(tuning, LoraTuning) else {"llama": 9, "bert": 16}[kind])


def test_lora_starts_from_the_generator() -> None:
    values = []
    for seed in (1, 1, 2):
        model = plain("bert")
        torch.manual_seed(seed)
        values.append({name: p.clone() for name, p in make_trainable(model, LoraTuning(), 1).items()})
    name = next(name for name in values[0] if "lora_A" in name)
    assert torch.equal(values[0][name], values[1][name]) and not torch.equal(values[0][name], values[2][name])


def test_the_digest_follows_the_weights_and_how_they_act(tmp_path: Path) -> None:
    trained = make_trainable(plain("bert"), LoraTuning(), 1)
    base = written(tmp_path / "a", trained, LoraTuning(), 1).digest
    assert written(tmp_path / "b", trained, LoraTuning(), 1).digest == base
    assert written(tmp_path / "c", trained, LoraTuning(alpha=1), 1).digest != base
    with torch.no_grad():
        next(iter(trained.values())).add_(1)
    assert written(tmp_path / "d", trained, LoraTuning(), 1).digest != base


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="q_proj.*no such linear map.*it has: dense, key, query, value"):
        make_trainable(plain("bert"), LoraTuning(targets=("q_proj",)), 1)
    with pytest.raises(ConfigError, match="last 9 layers"):
        make_trainable(plain("bert"), LayersTuning(), 9)
    adapter = written(tmp_path / "a", make_trainable(plain("bert"), LoraTuning(), 1), LoraTuning(), 1)
    with pytest.raises(ArtifactError, match="6 of its 6 tensors do not fit LlamaModel"):
        adapter.merged_into(plain("llama"))
    adapter.require_base("base")
    with pytest.raises(SpaceMismatchError, match="trained on weights base"):
        adapter.require_base("other")


def test_damage_is_noticed(tmp_path: Path) -> None:
    written(tmp_path / "a", make_trainable(plain("bert"), LoraTuning(), 1), LoraTuning(), 1)
    with (tmp_path / "a" / WEIGHTS).open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match="sha256 differs"):
        Adapter.open(tmp_path / "a")
    with pytest.raises(ArtifactError, match="not an artifact"):
        Adapter.open(tmp_path / "nowhere")
    write_artifact(tmp_path / "empty", Manifest(kind=KIND, key="k", config_hash="c"), lambda folder: {"layers": 1})
    with pytest.raises(ArtifactError, match="does not describe an adapter"):
        Adapter.open(tmp_path / "empty")


@pytest.fixture(scope="module")
def model(tiny: Callable[..., str]) -> str:
    return tiny("llama")


def config(model: str, **options: object) -> TextEncoderConfig:
    return TextEncoderConfig.parse({"name": "x", "model": model, "dtype": "float32", "normalise": False, **options})


def test_an_encoder_merges_in_float32_and_then_casts(model: str, tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path / "one", model)
    low, high, without = (TextEncoder.load(config(model, **o)) for o in ({"adapter": folder, "dtype": "bfloat16"}, {"adapter": folder}, {}))
    assert isinstance(low, TextEncoder) and isinstance(high, TextEncoder)
    for (name, weight), (_, exact) in zip(low.model.named_parameters(), high.model.named_parameters(), strict=True):
        assert torch.equal(weight, exact.bfloat16()), name
    assert np.abs(high.encode(TEXTS) - without.encode(TEXTS)).max() > 0.01


def test_the_space_names_adapter_and_split_and_no_folder(model: str, tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path / "one", model)
    adapter, space = Adapter.open(folder), config(model, adapter=folder).space()
    assert (space.adapter, space.split_hash) == (adapter.digest, "split") and str(folder) not in space.model_dump_json()
    assert space.space_id != config(model).space().space_id
    assert space == adapted(config(model).space(), folder, adapter.tuning, adapter.layers, "split")
    assert Adapter.open(tiny_adapter(tmp_path / "other", model, seed=1)).digest != adapter.digest
