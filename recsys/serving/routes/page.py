"""The page at `/`: three files that are read once and know no path from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

FILES = {"/": ("index.html", "text/html"), "/page/app.js": ("app.js", "text/javascript"), "/page/style.css": ("style.css", "text/css")}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def router() -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    for path, (name, kind) in FILES.items():
        routes.add_api_route(path, _giver(files("recsys.serving").joinpath("page", name).read_bytes(), kind), methods=["GET"])
    return routes


def _giver(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def give() -> Response:
        return Response(content, media_type=kind, headers=HEADERS)

    return give
