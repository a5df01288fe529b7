"""`EmbeddingSpace`: everything that can move a vector, and the id that is its hash."""

from __future__ import annotations

from pathlib import Path

from recsys.config import Config, digest_of


class EmbeddingSpace(Config):
    """Two vectors may be compared only if the `space_id` of both is equal. Machine paths never enter."""

    model: str
    """Name of the model as configured; for a folder its last part."""
    revision: str
    """sha256 of the weight files; of a model behind an endpoint what the configuration states."""
    tokenizer: str
    """sha256 of the tokenizer's files (of the weight file, where the tokenizer is inside)."""
    template: str
    """How the text is made of the item's fields."""
    max_length: int
    """Tokens a window; longer texts are split into windows."""
    layer: int
    """Index into the hidden states; -1 is the last, after the final norm."""
    pooling: str
    attention: str
    """causal or bidirectional."""
    normalise: bool
    dtype: str
    """Of the computation; vectors are stored as float32."""
    dim: int
    image_size: int = 0
    """Pixels a side that the picture is brought to; 0: pictures are not looked at."""
    image_backend: str = ""
    """What decodes and resizes the picture, with its version."""
    prompt: str = ""
    """The instruction before the text, or name and version of the prompt around it; "": none."""
    quantisation: str = ""
    """Of the weights in the computation; "": none."""
    adapter: str = ""
    """sha256 of fine-tuned weights on top of the model's; "": none."""
    post: str = ""
    """Kind and sha256 of the fitted post-processing (centring, whitening, PCA); "": none."""
    split_hash: str = ""
    """Of the split whose training interactions or items `adapter` or `post` was fitted on; "": nothing was fitted."""

    @property
    def space_id(self) -> str:
        """First 16 hex digits of the sha256 of all fields."""
        return digest_of(self.model_dump(mode="json"))[:16]


def model_name(model: str) -> str:
    """As configured; of a local folder its last part, for the same files may lie elsewhere on another machine."""
    return Path(model).resolve().name if Path(model).is_dir() else model
