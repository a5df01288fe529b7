"""`Artifact`: a folder with files and `manifest.json`. Stages pass artifacts to each other, never paths."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys.artifacts.atomic import crash_point, fsync_folder, read_json, sha256_of, write_json
from recsys.errors import ArtifactError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What an artifact is and where it comes from.

    kind: the stage or noun, e.g. "split".  key: hash of everything that decides the content.
    inputs: name -> key of each input artifact.  files: relative path -> sha256.
    metadata: facts for readers (counts, seeds, embedding spaces); JSON values only.
    """

    kind: str
    key: str
    config_hash: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    code_version: str = ""
    created: str = ""
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Artifact:
    """A finished, verified folder. `path` is absolute."""

    path: Path
    manifest: Manifest

    @property
    def key(self) -> str:
        return self.manifest.key

    def file(self, name: str) -> Path:
        """Path of one file that the manifest lists."""
        if name not in self.manifest.files:
            raise ArtifactError(f"{self.path} ({self.manifest.kind}) has no file {name!r}; it holds: {', '.join(sorted(self.manifest.files))}")
        return self.path / name

    @classmethod
    def open(cls, path: Path, *, kind: str | None = None, verify: bool = True) -> Artifact:
        """Read the manifest and check each file's sha256.

        Raises:
            ArtifactError: no manifest, another kind or schema version, a missing file or one with other bytes.
        """
        path = path.absolute()
        try:
            raw = read_json(path / MANIFEST)
            manifest = Manifest(**raw)
        except FileNotFoundError:
            raise ArtifactError(f"{path}: not an artifact (no {MANIFEST})") from None
        except (ValueError, TypeError) as error:
            raise ArtifactError(f"{path / MANIFEST}: not readable: {error}") from None
        if manifest.schema_version != SCHEMA_VERSION:
            raise ArtifactError(f"{path}: schema version {manifest.schema_version}, this code reads {SCHEMA_VERSION}")
        if kind is not None and manifest.kind != kind:
            raise ArtifactError(f"{path}: expected an artifact of kind {kind!r}, found {manifest.kind!r}")
        if verify:
            for name, expected in manifest.files.items():
                file = path / name
                if not file.is_file():
                    raise ArtifactError(f"{path}: file {name!r} is missing; delete the folder and run the stage again")
                if sha256_of(file) != expected:
                    raise ArtifactError(f"{file}: sha256 differs from the manifest, the file was changed or damaged; delete the folder and run the stage again")
        return cls(path, manifest)


def write_artifact(path: Path, manifest: Manifest, write: Callable[[Path], Mapping[str, Any] | None]) -> Artifact:
    """Create the artifact `path` whole or not at all.

    `write(folder)` puts the files into a temporary folder beside `path` and may return more metadata. A folder that
    another process finished meanwhile under the same name wins: same key, same content.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir()
    try:
        extra = write(temporary) or {}
        files = {}
        for file in sorted(f for f in temporary.rglob("*") if f.is_file()):
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
            files[file.relative_to(temporary).as_posix()] = sha256_of(file)
        complete = Manifest(
            kind=manifest.kind,
            key=manifest.key,
            config_hash=manifest.config_hash,
            inputs=dict(manifest.inputs),
            files=files,
            metadata={**manifest.metadata, **extra},
            code_version=manifest.code_version,
            created=manifest.created or datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_json(temporary / MANIFEST, {k: getattr(complete, k) for k in Manifest.__dataclass_fields__})
        crash_point(f"rename artifact {manifest.kind}")
        try:
            temporary.rename(path)
        except OSError:
            if not (path / MANIFEST).is_file():
                raise
        crash_point(f"renamed artifact {manifest.kind}")
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Artifact.open(path, kind=manifest.kind)
