"""Tiny vision models with random weights, saved like real ones, and pictures that need no file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

FAMILIES = ("clip", "clip_vision_model", "siglip", "siglip2", "dinov2", "dinov2_with_registers", "vit")
DIM, PROJECTED, SIDE, PATCH = 32, 24, 32, 8
_VISION = {
    "hidden_size": DIM, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": SIDE, "patch_size": PATCH,
    "initializer_range": 0.2,
}  # fmt: skip
_TEXT = {"vocab_size": 64, "hidden_size": DIM, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 16}


def tiny_vision_model(folder: Path, family: str, *, seed: int = 0, **options: Any) -> str:
    """Write model and image processor into `folder` and return it as a model name. CLIP and SigLIP come with their text part, as their checkpoints do."""
    import transformers

    vision = _VISION | options
    square = {"height": SIDE, "width": SIDE}
    config: Any
    processor: Any
    kind: type[Any] = transformers.AutoModel
    if family == "clip":
        config = transformers.CLIPConfig(vision_config=vision | {"projection_dim": PROJECTED}, text_config=_TEXT, projection_dim=PROJECTED)
    elif family == "clip_vision_model":
        config = transformers.CLIPVisionConfig(**vision, projection_dim=PROJECTED)
        kind = transformers.CLIPVisionModelWithProjection
    elif family == "siglip":
        config = transformers.SiglipConfig(vision_config=vision, text_config=_TEXT)
    elif family == "siglip2":
        vision |= {"num_patches": (SIDE // PATCH) ** 2}
        vision.pop("image_size")
        config = transformers.Siglip2Config(vision_config=vision, text_config=_TEXT)
    else:
        config = transformers.AutoConfig.for_model(family, **vision)
    if family.startswith("clip"):
        processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square)
    elif family == "siglip":
        processor = transformers.SiglipImageProcessorPil(size=square)
    elif family == "siglip2":
        processor = transformers.Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=(SIDE // PATCH) ** 2)
    elif family.startswith("dinov2"):
        processor = transformers.BitImageProcessorPil(size={"shortest_edge": SIDE + PATCH}, crop_size=square)
    else:
        processor = transformers.ViTImageProcessorPil(size=square)
    torch.manual_seed(seed)
    (kind(config) if kind is not transformers.AutoModel else kind.from_config(config)).eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def picture(seed: int = 0, width: int = 40, height: int = 60, format: str = "PNG") -> bytes:
    """A file of smooth colours, other ones for each seed, the same on every machine."""
    corners = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR).save(buffer, format)
    return buffer.getvalue()
