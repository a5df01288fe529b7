"""`broken`: links and anchors of a built site that lead nowhere, and what a page would fetch from another host, which is not asked."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

OUTSIDE = {"http", "https", "mailto", "data", "javascript"}


class _Page(HTMLParser):
    """ids: anchors of the page.  links: what it names.  fetched: of these, what a browser asks for by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (name == "name" and tag == "a"):
                self.ids.add(value)
            elif name in ("href", "src"):
                self.links.append(value)
                if tag in ("script", "img", "link", "iframe"):
                    self.fetched.append(value)


def read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def broken(site: Path) -> list[str]:
    """One line a broken link: where it stands, and what it names."""
    site = site.resolve()
    pages = {path: read(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for link in page.links:
            if problem := _problem(link, path, site, pages):
                found.append(f"{path.relative_to(site)}: {link!r}: {problem}")
        found += [f"{path.relative_to(site)}: {link!r}: fetched from another host" for link in page.fetched if urlsplit(link).netloc]
    return found


def _problem(link: str, path: Path, site: Path, pages: dict[Path, _Page]) -> str:
    parts = urlsplit(link)
    if parts.scheme in OUTSIDE or parts.netloc:
        return ""
    # The page of "not found" may be shown at any address, so its links begin at the root.
    target = path if not parts.path else (site / parts.path.lstrip("/") if parts.path.startswith("/") else path.parent / unquote(parts.path)).resolve()
    if target.is_dir():
        target = target / "index.html"
    if not target.is_relative_to(site) or not target.is_file():
        return "no such file"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].ids and not anchor.startswith(":~:"):
        return "no such anchor"
    return ""
