import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.artifacts.atomic import sha256_of
from recsys.embeddings.adapter import Adapter
from recsys.embeddings.content import of_texts
from recsys.embeddings.text import TextEncoder, TextEncoderConfig
from recsys.errors import ArtifactError, ConfigError
from recsys.testing.language_models import tiny_adapter

TEXTS = of_texts(["Toy Story", "Heat"])


@pytest.fixture(scope="module")
def model(tiny: Callable[..., str]) -> str:
    return tiny("llama")


@pytest.fixture(scope="module")
def folder(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tmp_path_factory.mktemp("adapters") / "one", model)


def config(model: str, **options: object) -> TextEncoderConfig:
    return TextEncoderConfig.parse({"name": "x", "model": model, "dtype": "float32", "normalise": False, **options})


def rewrite(folder: Path, name: str, change: Callable[[dict[str, object]], dict[str, object]]) -> None:
    """Change a JSON file of the artifact, and what the manifest says of it."""
    (folder / name).write_text(json.dumps(change(json.loads((folder / name).read_text()))))
    if name != "manifest.json":
        digest = sha256_of(folder / name)
        rewrite(folder, "manifest.json", lambda manifest: manifest | {"files": manifest["files"] | {name: digest}})  # type: ignore[operator]


def test_merged_is_the_adapted_model(model: str, folder: Path) -> None:
    """Against peft's own forward, which multiplies with the adapter's two matrices each time."""
    from peft import PeftModel
    from transformers import AutoModel

    plain, adapted = (TextEncoder.load(config(model, adapter=adapter)) for adapter in (None, folder))
    assert isinstance(adapted, TextEncoder)
    window = adapted.windows(["Heat"])[0]
    with torch.inference_mode():
        expected = PeftModel.from_pretrained(AutoModel.from_pretrained(model), str(folder)).eval()(torch.tensor([window.ids])).last_hidden_state.mean(1)
    np.testing.assert_allclose(adapted.encode(TEXTS[1:]), expected.numpy(), atol=1e-5)
    assert np.abs(adapted.encode(TEXTS) - plain.encode(TEXTS)).max() > 0.01


def test_merged_in_float32_then_cast(model: str, folder: Path) -> None:
    low = TextEncoder.load(config(model, adapter=folder, dtype="bfloat16"))
    high = TextEncoder.load(config(model, adapter=folder))
    assert isinstance(low, TextEncoder) and isinstance(high, TextEncoder)
    for (name, weight), (_, exact) in zip(low.model.named_parameters(), high.model.named_parameters(), strict=True):
        assert torch.equal(weight, exact.bfloat16()), name


def test_the_space_names_adapter_and_split(model: str, folder: Path, tmp_path: Path) -> None:
    adapter = Adapter.open(folder)
    space = config(model, adapter=folder).space()
    assert (space.adapter, space.split_hash) == (adapter.digest, "split") and str(folder) not in space.model_dump_json()
    assert space.space_id != config(model).space().space_id
    assert Adapter.open(tiny_adapter(tmp_path / "other_seed", model, seed=1)).digest != adapter.digest
    other_scale = tiny_adapter(tmp_path / "other_scale", model)
    assert Adapter.open(other_scale).digest == adapter.digest
    rewrite(other_scale, "adapter_config.json", lambda options: options | {"base_model_name_or_path": "/elsewhere", "inference_mode": False})
    assert Adapter.open(other_scale).digest == adapter.digest
    rewrite(other_scale, "adapter_config.json", lambda options: options | {"lora_alpha": 9})
    assert Adapter.open(other_scale).digest != adapter.digest


def test_an_adapter_of_unknown_origin_or_changed_bytes_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="split_hash"):
        Adapter.open(tiny_adapter(tmp_path / "unknown", model, split_hash=""))
    with pytest.raises(ArtifactError, match="not an artifact"):
        Adapter.open(tmp_path)
    damaged = tiny_adapter(tmp_path / "damaged", model)
    data = bytearray((damaged / "adapter_model.safetensors").read_bytes())
    data[-1] ^= 1
    (damaged / "adapter_model.safetensors").write_bytes(data)
    with pytest.raises(ArtifactError, match="sha256"):
        config(model, adapter=damaged).space()


def test_an_adapter_of_another_model_is_refused(tiny: Callable[..., str], folder: Path, tmp_path: Path, model: str) -> None:
    for other in (tiny("llama", num_hidden_layers=2), tiny("llama", num_hidden_layers=4), tiny("llama", num_key_value_heads=4), tiny("bert")):
        with pytest.raises(ConfigError, match="does not fit"):
            TextEncoder.load(config(other, adapter=folder))
