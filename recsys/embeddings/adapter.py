"""`Adapter`: fine-tuned weights on top of a model's own: LoRA, or its last layers whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import safetensors.torch
import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn

from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import sha256_of, write_bytes
from recsys.config import Config, digest_of
from recsys.embeddings.layers import first_of_last, layers_of
from recsys.embeddings.space import EmbeddingSpace
from recsys.errors import ArtifactError, ConfigError, SpaceMismatchError

KIND = "adapter"
WEIGHTS = "adapter.safetensors"
_PEFT_NAME = "default"
_A, _B = ".lora_A.weight", ".lora_B.weight"
ModelT = TypeVar("ModelT", bound=nn.Module)


class LoraTuning(Config):
    """Low-rank updates (Hu et al., ICLR 2022, arXiv 2106.09685) of the linear maps: W + (alpha / rank) B A."""

    kind: Literal["lora"] = "lora"
    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of what goes into A."""
    targets: tuple[str, ...] = ()
    """Last parts of the names of the linear maps, such as "q_proj"; empty: all of a layer."""


class LayersTuning(Config):
    """All weights of the layers."""

    kind: Literal["layers"] = "layers"


Tuning = Annotated[LoraTuning | LayersTuning, Field(discriminator="kind")]


@dataclass(frozen=True)
class Adapter:
    """A verified artifact.

    base_revision: of the weights that it stands on (`EmbeddingSpace.revision`).  split_hash: whose training it learned from.
    layers: how many of the last layers it changes.
    """

    path: Path
    tuning: LoraTuning | LayersTuning
    layers: int
    base_revision: str
    split_hash: str
    digest: str
    """sha256 of its weights and of how they act: what enters the embedding space."""

    @classmethod
    def open(cls, path: Path) -> Adapter:
        """Raises ArtifactError: no such artifact, of another kind, or changed since it was written."""
        artifact = Artifact.open(path, kind=KIND)
        facts = artifact.manifest.metadata
        try:
            tuning: LoraTuning | LayersTuning = TypeAdapter(Tuning).validate_python(facts["tuning"])
            layers, base, split = int(facts["layers"]), str(facts["base_revision"]), str(facts["split_hash"])
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"{path}: the manifest does not describe an adapter: {error}") from None
        return cls(artifact.path, tuning, layers, base, split, _digest(artifact.manifest.files[WEIGHTS], tuning, layers))

    def require_base(self, revision: str) -> None:
        """Raises SpaceMismatchError unless `revision`, sha256 of a model's own weights, is what it was trained on."""
        if revision != self.base_revision:
            raise SpaceMismatchError(f"{self.path}: trained on weights {self.base_revision[:12]}, this model has {revision[:12]}; train one on these weights")

    def merged_into(self, model: ModelT) -> ModelT:
        """`model` itself, its own weights changed in place. They should be float32: in bf16 a small change may be rounded away.

        Raises:
            ArtifactError: its tensors do not fit this model.
        """
        stored = safetensors.torch.load_file(self.path / WEIGHTS)
        changed = _low_rank(stored, self.tuning) if isinstance(self.tuning, LoraTuning) else stored
        own = dict(model.named_parameters())
        if unlike := {name for name, value in changed.items() if name not in own or own[name].shape != value.shape}:
            raise ArtifactError(f"{self.path}: {len(unlike)} of its {len(changed)} tensors do not fit {type(model).__name__}, such as {min(unlike)}")
        with torch.no_grad():
            for name, value in changed.items():
                own[name].add_(value) if isinstance(self.tuning, LoraTuning) else own[name].copy_(value)
        return model


def make_trainable(model: nn.Module, tuning: LoraTuning | LayersTuning, layers: int) -> dict[str, nn.Parameter]:
    """Change `model` in place: what the tuning trains in its last `layers` layers is trainable, all else frozen. Name -> parameter.

    They are float32 whatever the model is: in bf16 an optimiser's small steps would be lost. LoRA's A starts from torch's
    generator and its B at 0, so that nothing has moved yet.

    Raises:
        ConfigError: too few layers, or targets that no layer has.
    """
    first = first_of_last(model, layers)
    prefix, _ = layers_of(model)
    inside = tuple(f"{prefix}.{number}." for number in range(first, first + layers))
    model.requires_grad_(False)
    if isinstance(tuning, LoraTuning):
        _inject(model, tuning, inside)
    chosen = {}
    for name, parameter in model.named_parameters():
        if name.startswith(inside) and (isinstance(tuning, LayersTuning) or ".lora_" in name):
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
            chosen[name.replace(f".{_PEFT_NAME}.", ".")] = parameter
    return chosen


def _digest(weights: str, tuning: LoraTuning | LayersTuning, layers: int) -> str:
    return digest_of([weights, tuning.model_dump(mode="json"), layers])


def adapted(space: EmbeddingSpace, folder: Path, tuning: LoraTuning | LayersTuning, layers: int, split: str) -> EmbeddingSpace:
    """The space of an encoder in `space` with the adapter whose weights `save_adapter` wrote into `folder`."""
    return space.model_copy(update={"adapter": _digest(sha256_of(folder / WEIGHTS), tuning, layers), "split_hash": split})


def save_adapter(folder: Path, trained: Mapping[str, Tensor], tuning: LoraTuning | LayersTuning, layers: int, *, base: str, split: str) -> dict[str, Any]:
    """Write what `make_trainable` named into an artifact's folder; returns the metadata that its manifest must hold.

    base: revision of the weights that it stands on.  split: hash of the split that it learned from.
    """
    write_bytes(folder / WEIGHTS, safetensors.torch.save({name: tensor.detach().clone().contiguous() for name, tensor in trained.items()}))
    return {"tuning": tuning.model_dump(mode="json"), "layers": layers, "base_revision": base, "split_hash": split}


def _inject(model: nn.Module, tuning: LoraTuning, inside: tuple[str, ...]) -> None:
    # Heavy, and needed for training alone.
    from peft import LoraConfig, inject_adapter_in_model

    linear = [name for name, module in model.named_modules() if name.startswith(inside) and isinstance(module, nn.Linear)]
    known = sorted({name.rsplit(".", 1)[-1] for name in linear})
    if unknown := [target for target in tuning.targets if target not in known]:
        raise ConfigError(f"LoRA targets {', '.join(unknown)}: no such linear map in the last layers of {type(model).__name__}; it has: {', '.join(known)}")
    wanted = [name for name in linear if not tuning.targets or name.rsplit(".", 1)[-1] in tuning.targets]
    config = LoraConfig(r=tuning.rank, lora_alpha=tuning.alpha, lora_dropout=tuning.dropout, target_modules=wanted)  # type: ignore[arg-type]
    inject_adapter_in_model(config, model, adapter_name=_PEFT_NAME)
    for module in model.modules():
        if hasattr(module, "lora_A"):
            # The maps of LoRA are computed in the dtype of the others.
            module.cast_input_dtype_enabled = False  # type: ignore[assignment]


def _low_rank(stored: Mapping[str, Tensor], tuning: LoraTuning) -> dict[str, Tensor]:
    """Name of a weight -> (alpha / rank) B A."""
    maps = [name.removesuffix(_A) for name in stored if name.endswith(_A)]
    return {f"{name}.weight": stored[f"{name}{_B}"] @ stored[f"{name}{_A}"] * (tuning.alpha / tuning.rank) for name in maps}
