from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.testing.language_models import tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """tiny(family, **options) -> name of a tiny random model, made once a session."""
    made: dict[str, str] = {}

    def make(family: str, **options: object) -> str:
        key = f"{family}-{sorted(options.items())}"
        if key not in made:
            folder: Path = tmp_path_factory.mktemp(family)
            made[key] = tiny_model(folder, family, **options)  # type: ignore[arg-type]
        return made[key]

    return make
