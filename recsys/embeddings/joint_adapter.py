"""`JointAdapter`: a trained bridge, and what was tuned of the language model with it, as an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import sha256_of, write_bytes
from recsys.config import digest_of
from recsys.embeddings.adapter import WEIGHTS, Adapter, LayersTuning, LoraTuning, Tuning, save_adapter
from recsys.embeddings.joint_bridge import Bridge
from recsys.embeddings.space import EmbeddingSpace
from recsys.errors import ArtifactError, SpaceMismatchError

KIND = "joint_adapter"
BRIDGE = "bridge.safetensors"


@dataclass(frozen=True)
class JointAdapter:
    """A verified artifact.

    untrained_space: id of the space of the encoder without an adapter (`JointEncoderConfig.untrained_space`): models, prompt and all options
    that it was trained with.  text: what changes the language model; None: it was left as it is.
    """

    path: Path
    untrained_space: str
    split_hash: str
    text: Adapter | None
    digest: str
    """sha256 of its weights and of how they act: what enters the embedding space."""

    @classmethod
    def open(cls, path: Path) -> JointAdapter:
        """Raises ArtifactError: no such artifact, of another kind, or changed since it was written."""
        artifact = Artifact.open(path, kind=KIND)
        facts, files = artifact.manifest.metadata, artifact.manifest.files
        try:
            space, split = str(facts["untrained_space"]), str(facts["split_hash"])
            digest = _digest({name: files[name] for name in (BRIDGE, WEIGHTS) if name in files}, facts)
            text = None
            if WEIGHTS in files:
                tuning: LoraTuning | LayersTuning = TypeAdapter(Tuning).validate_python(facts["tuning"])
                text = Adapter(artifact.path, tuning, int(facts["layers"]), str(facts["base_revision"]), split, digest)
            artifact.file(BRIDGE)
        except (KeyError, ValueError, ValidationError) as error:
            raise ArtifactError(f"{path}: the manifest does not describe a joint adapter: {error}") from None
        return cls(artifact.path, space, split, text, digest)

    def require_space(self, untrained: str) -> None:
        """Raises SpaceMismatchError unless it was trained with these models and options."""
        if untrained != self.untrained_space:
            raise SpaceMismatchError(
                f"{self.path}: trained with other models or options (space {self.untrained_space}, this encoder without it has {untrained}); "
                "use the config that it was trained with"
            )

    def into(self, bridge: Bridge) -> None:
        """Raises ArtifactError: its tensors do not fit."""
        try:
            bridge.load_state_dict(safetensors.torch.load_file(self.path / BRIDGE))
        except RuntimeError as error:
            raise ArtifactError(f"{self.path / BRIDGE}: does not fit: {error}") from None


def save_joint_adapter(
    folder: Path,
    bridge: Bridge,
    *,
    untrained_space: str,
    split: str,
    trained: Mapping[str, Tensor] | None = None,
    tuning: LoraTuning | LayersTuning | None = None,
    layers: int = 0,
    base: str = "",
) -> dict[str, Any]:
    """Write into an artifact's folder; returns the metadata that its manifest, of kind `KIND`, must hold.

    split: hash of the split that it learned from.  trained, tuning, layers, base: of the language model, as for `save_adapter`.
    """
    write_bytes(folder / BRIDGE, safetensors.torch.save({name: tensor.detach().clone().contiguous() for name, tensor in bridge.state_dict().items()}))
    facts: dict[str, Any] = {} if trained is None or tuning is None else save_adapter(folder, trained, tuning, layers, base=base, split=split)
    return {**facts, "untrained_space": untrained_space, "split_hash": split}


def joint_adapted(space: EmbeddingSpace, folder: Path, facts: Mapping[str, Any]) -> EmbeddingSpace:
    """The space of an encoder in `space` with what `save_joint_adapter` wrote into `folder`; facts: what it returned."""
    files = {name: sha256_of(folder / name) for name in (BRIDGE, WEIGHTS) if (folder / name).is_file()}
    return space.model_copy(update={"adapter": _digest(files, facts), "split_hash": facts["split_hash"]})


def _digest(files: Mapping[str, str], facts: Mapping[str, Any]) -> str:
    """Of the trained files alone: an artifact may hold more."""
    return digest_of([dict(files), facts.get("tuning"), facts.get("layers")])
