"""A registry of folders: `alias` names the version that should answer, `<version>/` is its bundle."""

from __future__ import annotations

from pathlib import Path

from recsys.artifacts.artifact import Artifact
from recsys.errors import RetryableError
from recsys.serving.bundle import Bundle, load_bundle
from tests.serving import making


class FolderSource:
    def __init__(self, root: Path) -> None:
        self.root, self.down = root, False

    def release(self, version: str, *, seed: int = 0, name: str = "small") -> Artifact:
        """A new version that the alias names from now on."""
        self.root.mkdir(parents=True, exist_ok=True)
        bundle = making.bundle(self.root / version, seed=seed, name=name)
        self.point_to(version)
        return bundle

    def point_to(self, version: str) -> None:
        (self.root / "alias").write_text(version)

    def version(self) -> str | None:
        if self.down:
            raise RetryableError("the registry does not answer")
        path = self.root / "alias"
        return path.read_text() if path.exists() else None

    def fetch(self, version: str) -> Bundle:
        return load_bundle(self.root / version, version=version)
