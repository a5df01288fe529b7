"""`load_encoder`: the one place where a config becomes an encoder."""

from __future__ import annotations

from recsys.embeddings.configs import EncoderConfig
from recsys.embeddings.encoder import Encoder
from recsys.embeddings.endpoint import EndpointEncoder, EndpointEncoderConfig
from recsys.embeddings.image import ImageEncoder
from recsys.embeddings.image_config import ImageEncoderConfig
from recsys.embeddings.joint import JointEncoder, JointEncoderConfig
from recsys.embeddings.post import FittedPost
from recsys.embeddings.post_encoder import PostEncoder, PostEncoderConfig
from recsys.embeddings.promptreps import PromptReps, PromptRepsConfig
from recsys.embeddings.text import TextEncoder


def load_encoder(config: EncoderConfig) -> Encoder:
    """Weights are read here and nowhere earlier. Raises ConfigError: weights not found, or options that do not fit them; ArtifactError: damaged."""
    if isinstance(config, ImageEncoderConfig):
        return ImageEncoder.load(config)
    if isinstance(config, JointEncoderConfig):
        return JointEncoder.load(config)
    if isinstance(config, PromptRepsConfig):
        return PromptReps.load(config)
    if isinstance(config, EndpointEncoderConfig):
        return EndpointEncoder(config)
    if isinstance(config, PostEncoderConfig):
        return PostEncoder(load_encoder(config.encoder), FittedPost.load(config.post))
    return TextEncoder.load(config)
