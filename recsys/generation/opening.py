"""`open_generator`: the one place where a config becomes a Generator with its cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from recsys.generation.cache import CachedGenerator, GenerationCache
from recsys.generation.endpoint import EndpointGenerator, EndpointGeneratorConfig
from recsys.generation.generator import Generator
from recsys.generation.imported import ImportedGenerator, ImportedGeneratorConfig
from recsys.generation.local import LocalGenerator, LocalGeneratorConfig

GeneratorConfig = Annotated[LocalGeneratorConfig | EndpointGeneratorConfig | ImportedGeneratorConfig, Field(discriminator="kind")]


def load_generator(config: LocalGeneratorConfig | EndpointGeneratorConfig | ImportedGeneratorConfig) -> Generator:
    """Weights, keys and files are read here and nowhere earlier. Raises ConfigError or DataError."""
    if isinstance(config, LocalGeneratorConfig):
        return LocalGenerator.load(config)
    if isinstance(config, EndpointGeneratorConfig):
        return EndpointGenerator(config)
    return ImportedGenerator.load(config)


def open_generator(
    config: LocalGeneratorConfig | EndpointGeneratorConfig | ImportedGeneratorConfig, cache_root: Path, *, shard_rows: int = 32
) -> CachedGenerator:
    """Answers from the cache where it has them; the model is loaded, or the server asked, only for what is missing.

    Raises:
        ConfigError: weights not found.  DataError: no file of answers.  ArtifactError: a damaged shard.
    """
    identity = config.identity()
    return CachedGenerator(GenerationCache(cache_root, config.generator_id, identity), lambda: load_generator(config), shard_rows=shard_rows)
