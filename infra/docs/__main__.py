"""`python -m infra.docs`: make the generated pages, build `site/`, fail on a warning or on a link that leads nowhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from infra.docs import cli_reference, http_reference, links, measured, python_reference

ROOT = Path(__file__).parent.parent.parent
GENERATED = ("reference", "measured")
"""Folders of `docs/` that are made here and not kept in git."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def generate(docs: Path) -> None:
    for name in GENERATED:
        shutil.rmtree(docs / name, ignore_errors=True)
        (docs / name).mkdir()
    (docs / "reference" / "python").mkdir()
    for name, text in python_reference.pages(ROOT / python_reference.PACKAGE).items():
        (docs / "reference" / "python" / name).write_text(text, encoding="utf-8")
    (docs / "reference" / "cli.md").write_text(cli_reference.page(), encoding="utf-8")
    http_reference.write(docs / "reference")
    measured.write(ROOT, docs / "measured")


def build(site: Path) -> str:
    """What Zensical wrote to its terminal; "" when it was content."""
    shutil.rmtree(site, ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    told = _COLOUR.sub("", done.stdout + done.stderr).partition("Traceback")[0]
    return told if done.returncode or "Warning" in told else ""


def not_in_navigation(docs: Path) -> list[str]:
    """Pages written by hand that only the search finds."""
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(docs).as_posix() for path in sorted(docs.rglob("*.md"))]
    return [page for page in pages if not page.startswith(GENERATED) and not re.search(rf"[ :]{re.escape(page)}$", listed, re.MULTILINE)]


def main() -> None:
    generate(ROOT / "docs")
    if told := build(ROOT / "site"):
        sys.exit(f"{told}\nthe site has warnings: see above")
    if found := links.broken(ROOT / "site"):
        sys.exit("\n".join([*found, f"{len(found)} links lead nowhere"]))
    for page in not_in_navigation(ROOT / "docs"):
        sys.stdout.write(f"docs/{page} is not in the navigation: name it in mkdocs.yml\n")
    pages = len(list((ROOT / "site").rglob("*.html")))
    sys.stdout.write(f"site/index.html: {pages} pages, no warnings, all internal links lead somewhere\n")


if __name__ == "__main__":
    main()
