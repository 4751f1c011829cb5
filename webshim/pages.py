"""The page and its files, read once and served from memory. Each file has its own route; no path is looked up."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

STATIC = Path(__file__).parent / "static"
INDEX = "index.html"
# This tag in the page is replaced by one with the real base path.
BASE_TAG = '<base href="/">'
# All files are also served below VERSIONS/VERSION/. Relative imports stay within that version.
VERSIONS = "at"
IMMUTABLE = "public, max-age=31536000, immutable"
_NAMED = re.compile(r'\b(href|src)="([^"#]+)')
_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}
_UNBUILT = (
    f"<!doctype html><html lang=en><head><meta charset=utf-8>{BASE_TAG}<title>sshgate</title></head><body>"
    "<p>The page is not built into this installation; the API works.</p></body></html>"
)


@dataclass(frozen=True, slots=True)
class _Part:
    content: bytes
    type: str
    tag: str


class Pages:
    """All files below ``root`` that are served to browsers. Reading them blocks, so construct it in a thread."""

    def __init__(self, root: Path = STATIC) -> None:
        self._parts = {
            path.relative_to(root).as_posix(): _part(path) for path in sorted(root.rglob("*")) if _is_part(path)
        }
        index = self._parts.get(INDEX)
        tags = "".join(f"{name} {part.tag} " for name, part in self._parts.items())
        self.version = hashlib.sha256(tags.encode()).hexdigest()[:16]
        """A hash over all files. They refer to each other, so a page must never load files of two versions."""
        self._index = index.content.decode() if index is not None else _UNBUILT

        if index is not None:
            self._index = _NAMED.sub(self._versioned, self._index)

    def __repr__(self) -> str:
        return f"<Pages {len(self._parts)} files>"

    def index(self, base: str) -> web.Response:
        """Return the page with this base path, given without a trailing slash."""
        text = self._index.replace(BASE_TAG, f'<base href="{base}/">')
        return web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-cache"})

    @property
    def names(self) -> list[str]:
        """The names of all files except the page itself."""
        return [name for name in self._parts if name != INDEX]

    def part(self, name: str, request: web.Request) -> web.Response:
        """Return one file. If the request's path has the current version, as in the page, it is cached for good.

        Raises ``KeyError`` for an unknown name; routes exist only for ``names``.
        """
        part = self._parts[name]
        kept = request.match_info.get("version") == self.version
        headers = {"Cache-Control": IMMUTABLE if kept else "no-cache", "ETag": part.tag, "Content-Type": part.type}
        if request.headers.get("If-None-Match") == part.tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=part.content, headers=headers)

    def _versioned(self, found: re.Match[str]) -> str:
        attribute, name = found.groups()
        return f'{attribute}="{VERSIONS}/{self.version}/{name}' if name in self._parts else found[0]


def _is_part(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.suffix not in (".py", ".pyc")


def _part(path: Path) -> _Part:
    content = path.read_bytes()
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    charset = "; charset=utf-8" if kind.startswith(("text/", "image/svg")) else ""
    return _Part(content, kind + charset, f'"{hashlib.sha256(content).hexdigest()[:24]}"')
