"""`load_encoder`: the one place where a config becomes an encoder."""

from __future__ import annotations

from recsys.embeddings.configs import EncoderConfig
from recsys.embeddings.encoder import Encoder
from recsys.embeddings.text import TextEncoder


def load_encoder(config: EncoderConfig) -> Encoder:
    """Weights are read here and nowhere earlier. Raises ConfigError: weights not found, or options that do not fit them."""
    return TextEncoder.load(config)
