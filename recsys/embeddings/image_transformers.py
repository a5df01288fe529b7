"""CLIP, SigLIP, SigLIP2, DINOv2 and ViT models of transformers, through its image processors on Pillow (they need no torchvision)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from recsys.artifacts.atomic import sha256_of
from recsys.config import digest_of
from recsys.embeddings.image_config import ImageEncoderConfig
from recsys.embeddings.image_models import ImageModel, Tower, letterbox, space_of
from recsys.embeddings.pooling import masked_mean
from recsys.errors import ConfigError
from recsys.weights.find import find_folder
from recsys.weights.load import DTYPES


@dataclass(frozen=True)
class Family:
    """`tower`: the class of transformers that holds the vision part alone; `poolings`: the native one first."""

    tower: str
    poolings: tuple[str, ...]


_CLIP = Family("CLIPVisionModel", ("projected", "cls", "mean"))
_SIGLIP = Family("SiglipVisionModel", ("pooler", "mean"))
_SIGLIP2 = Family("Siglip2VisionModel", ("pooler", "mean"))
FAMILIES = {
    "clip": _CLIP, "clip_vision_model": _CLIP, "siglip": _SIGLIP, "siglip_vision_model": _SIGLIP, "siglip2": _SIGLIP2, "siglip2_vision_model": _SIGLIP2,
    "dinov2": Family("Dinov2Model", ("cls", "mean")), "dinov2_with_registers": Family("Dinov2WithRegistersModel", ("cls", "mean")),
    "vit": Family("ViTModel", ("cls", "mean")),
}  # fmt: skip


def find(config: ImageEncoderConfig) -> ImageModel:
    """Raises ConfigError: no such model or no safetensors, another family, or an option that the family does not have."""
    from transformers import AutoConfig

    folder = find_folder(config.model)
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise ConfigError(f"model {config.model!r}: {folder} holds no config.json with safetensors; pickled weights (.bin, .pth) are not read")
    try:
        whole = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"model {config.model!r}: config.json is not readable: {error}") from None
    family = FAMILIES.get(whole.model_type)
    if family is None:
        raise ConfigError(f"model {config.model!r}: a {whole.model_type!r} model is not an image encoder; known: {', '.join(FAMILIES)}")
    vision = getattr(whole, "vision_config", whole)
    pooling = _pooling(config, family, whole, vision)
    processor, side = _framed(_processor(config, folder), config, int(vision.patch_size))
    digests = [sha256_of(file) for file in files]
    space = space_of(
        config,
        revision=digests[0] if len(digests) == 1 else digest_of(digests),
        pooling=pooling,
        dim=int(vision.projection_dim if pooling == "projected" else vision.hidden_size),
        side=side,
        preparation=f"{config.framing} {type(processor).__name__} {digest_of(processor.to_dict())[:16]}",
    )

    def load() -> Tower:
        return TransformersTower(_tower(config, folder, family, pooling), processor, pooling, letterboxed=side if config.framing == "letterbox" else 0)

    return ImageModel(space, load)


def _pooling(config: ImageEncoderConfig, family: Family, whole: Any, vision: Any) -> str:
    known = list(family.poolings)
    if whole.model_type == "clip_vision_model" and not any("WithProjection" in name for name in whole.architectures or ()):
        known.remove("projected")
    if not getattr(vision, "vision_use_head", True):
        known.remove("pooler")
    chosen = known[0] if config.pooling == "native" else config.pooling
    if chosen not in known:
        raise ConfigError(f"encoder {config.name!r}: {config.model!r} ({whole.model_type}) has pooling {', '.join(known)}, got {config.pooling!r}")
    return chosen


def _processor(config: ImageEncoderConfig, folder: Path) -> Any:
    from transformers import AutoImageProcessor

    kind: Any = AutoImageProcessor
    try:
        processor = kind.from_pretrained(folder, backend="pil", local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(f"model {config.model!r}: no image processor, is preprocessor_config.json there? {error}") from None
    if getattr(processor, "backend", None) != "pil":
        raise ConfigError(f"model {config.model!r}: {type(processor).__name__} does not work on Pillow; give a model with a *Pil processor")
    return processor


def _framed(processor: Any, config: ImageEncoderConfig, patch: int) -> tuple[Any, int]:
    """The processor with the configured size and framing, and the side of the square that it gives (of equal area for SigLIP2, which keeps the shape)."""
    settings = processor.to_dict()
    size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
    cropped = bool(settings.get("do_center_crop"))
    patches = int(settings.get("max_num_patches") or 0)
    target = crop if cropped else size
    own = patch * math.isqrt(patches) if patches else int(target.get("height") or 0)
    if not own or (not patches and target.get("width") != own):
        raise ConfigError(
            f"model {config.model!r}: its processor gives no squares (size {size}, crop_size {crop if cropped else None}); such models are not supported"
        )
    side = config.image_size or own
    if side % patch:
        raise ConfigError(f"encoder {config.name!r}: image_size {side} is no multiple of the {patch} pixels of a patch")
    if side != own or config.framing == "letterbox":
        square = {"height": side, "width": side}
        if patches:
            settings["max_num_patches"] = (side // patch) ** 2
        elif cropped:
            edge = size.get("shortest_edge")
            settings |= {"crop_size": square, "size": {"shortest_edge": round(edge * side / own)} if edge else square}
        else:
            settings["size"] = square
    if config.framing == "letterbox":
        settings |= {"do_resize": False, "do_center_crop": False}
    return type(processor).from_dict(settings), side


def _tower(config: ImageEncoderConfig, folder: Path, family: Family, pooling: str) -> Any:
    import transformers

    kind = getattr(transformers, family.tower + ("WithProjection" if pooling == "projected" else ""))
    options: dict[str, Any] = {"add_pooling_layer": False} if family.tower == "ViTModel" else {}
    with _unreported():
        model, info = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=DTYPES[config.dtype], output_loading_info=True, **options)
    if missing := sorted(info["missing_keys"]):  # transformers would fill them with random numbers
        raise ConfigError(f"{config.model!r}: the files lack {len(missing)} weights of {kind.__name__}, first {missing[0]!r}; is it another kind of model?")
    return model.eval().requires_grad_(False)


@contextmanager
def _unreported() -> Iterator[None]:
    """Without transformers' table of what it left out: that is the text part, on purpose. What is missing is an error here."""
    log = logging.getLogger("transformers.modeling_utils")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


class TransformersTower:
    """letterboxed: side of the grey square that pictures are put on before the processor; 0: none."""

    def __init__(self, model: Any, processor: Any, pooling: str, *, letterboxed: int = 0) -> None:
        self.model: nn.Module = model
        self._processor, self._pooling, self._letterboxed = processor, pooling, letterboxed
        kind = model.config.model_type
        self._dtype: torch.dtype = model.dtype
        self._interpolates = kind.startswith(("clip", "siglip_", "vit"))
        """Where positions of another picture size are made on request only."""
        self._side = int(getattr(model.config, "image_size", 0) or 0)
        self._clip = kind.startswith("clip")
        self._skipped = 0 if kind.startswith("siglip") else 1 + int(getattr(model.config, "num_register_tokens", 0))
        """Tokens before the patches."""

    def prepare(self, pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        """pixel_values float32 (B, 3, S, S); SigLIP2: (B, patches, pixels of a patch), with mask and shapes."""
        if self._letterboxed:
            resample = self._processor.resample
            pictures = [letterbox(picture, self._letterboxed, resample) for picture in pictures]
        return dict(self._processor(images=list(pictures), return_tensors="pt"))

    def vectors(self, inputs: dict[str, Tensor]) -> Tensor:
        pixels = inputs["pixel_values"].to(self._dtype)
        options: dict[str, Any] = {"interpolate_pos_encoding": True} if self._interpolates and pixels.shape[-1] != self._side else {}
        found = self.model(**{**inputs, "pixel_values": pixels}, **options)
        if self._pooling == "projected":
            vectors = found.image_embeds
        elif self._pooling == "pooler" or (self._pooling == "cls" and self._clip):
            vectors = found.pooler_output
        elif self._pooling == "cls":
            vectors = found.last_hidden_state[:, 0]
        else:
            return masked_mean(found.last_hidden_state[:, self._skipped :], inputs.get("pixel_attention_mask"))
        return vectors.float()  # type: ignore[no-any-return]
