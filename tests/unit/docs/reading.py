"""The pages that people wrote."""

from __future__ import annotations

from pathlib import Path

from infra.docs.__main__ import GENERATED, ROOT

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
    if path.relative_to(ROOT / "docs" if path.is_relative_to(ROOT / "docs") else ROOT).parts[0] not in GENERATED
}
"""Path from the repository's root -> text."""


def whole(name: str) -> bool:
    """Pages whose every example runs, or parses by a config that is known here."""
    return name in ("README.md", "docs/start.md", "docs/index.md") or Path(name).parent.name in ("concepts", "how-to", "methods")
