"""Randomness is an argument: one seed a run, spawned by name, so that adding a component moves no other."""

import hashlib

import numpy as np
import torch


def derive_seed(seed: int, *names: str) -> int:
    """A 63-bit seed from the run's seed and the component's name, equal on every machine."""
    digest = hashlib.sha256("/".join((str(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_generator(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, *names))


def torch_generator(seed: int, *names: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, *names))
