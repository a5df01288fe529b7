"""Loaders for the encoder's process: light to import, and bad in known ways."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from recsys.embeddings.hashed import HashedEncoder
from recsys.errors import DataError, SpaceMismatchError


def load_hashed(config: Mapping[str, Any]) -> HashedEncoder:
    return HashedEncoder(config["dim"], template=config["template"])


def raise_data(config: Any) -> Any:
    raise DataError("bad text")


def raise_space(config: Any) -> Any:
    raise SpaceMismatchError("another space")


def die(config: Any) -> Any:
    os._exit(3)


def hang(config: Any) -> Any:
    time.sleep(600)
