"""The page and its files, read once and served from memory. Each file has its own route; no path is looked up."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from aiohttp import web

from webshim.bundle import bundle
from webshim.responses import CONTENT_SECURITY_POLICY

STATIC = Path(__file__).parent / "static"
# The pages. Nothing of the second is for who has logged in.
INDEX, WATCH = "index.html", "watch.html"
ENTRIES = "page.js", "watch.js"
# The styles of both pages, in their order; they are sent as one, which has this name.
STYLES = "vendor/xterm.css", "page.css", "parts.css"
STYLE = "page.css"
# This tag in the page is replaced by one with the real base path.
BASE_TAG = '<base href="/">'
# All files are also served below VERSIONS/VERSION/. Relative imports stay within that version.
VERSIONS = "at"
IMMUTABLE = "public, max-age=31536000, immutable"
_NAMED = re.compile(r'\b(href|src|data-page)="([^"#]+)')
_IMPORTED = re.compile(r'^(?:import|export)\b[^;"(]*"\./([^"]+)"', re.MULTILINE)
BOOT = "boot.js"
# This script is sent within the page: nothing else has arrived when it runs.
_BOOT_SOURCE = re.compile(rf' src="[^"]*{BOOT}"></script>')
_OTHER_STYLES = re.compile(rf' *<link rel="stylesheet" href="(?!{STYLE}")[^"]+">\n')
# This tag is replaced by one for each module that its own imports, so that they are requested all at once.
_PRELOAD = re.compile(r'<link rel="modulepreload" href="([^"]+)">')
# What is written for the readers of our own modules and styles is not sent.
_COMMENT = re.compile(rb"^[ \t]*(?:/\*(?:(?!\*/).)*\*/|//[^\n]*)[ \t]*\n|/\*\* @[^*\n]*\*/ ?", re.MULTILINE | re.DOTALL)
_INDENT = re.compile(rb"^[ \t]+|^\n", re.MULTILINE)
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
    packed: bytes | None
    """The content as gzip; ``None`` where that is not smaller."""
    type: str
    tag: str

    @classmethod
    def of(cls, content: bytes, name: str) -> _Part:
        kind = _TYPES.get(PurePosixPath(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        charset = "; charset=utf-8" if kind.startswith(("text/", "image/svg")) else ""
        packed = gzip.compress(content, mtime=0)
        tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
        return cls(content, packed if len(packed) < len(content) else None, kind + charset, tag)

    @classmethod
    def read(cls, path: Path, own: bool) -> _Part:
        content = path.read_bytes()
        if own and path.suffix in (".js", ".css"):
            content = _INDENT.sub(b"", _COMMENT.sub(b"", content))
        return cls.of(content, path.name)


class Pages:
    """All files below ``root`` that are served to browsers. Reading them blocks, so construct it in a thread."""

    def __init__(self, root: Path = STATIC) -> None:
        self._parts = {
            path.relative_to(root).as_posix(): _Part.read(path, own=path.parent == root)
            for path in sorted(root.rglob("*"))
            if path.is_file() and not path.name.startswith(".") and path.suffix not in (".py", ".pyc")
        }
        self._bundle(root)
        tags = "".join(f"{name} {part.tag} " for name, part in self._parts.items())
        self.version = hashlib.sha256(tags.encode()).hexdigest()[:16]
        """A hash over all files. They refer to each other, so a page must never load files of two versions."""
        self._policy = CONTENT_SECURITY_POLICY
        self._pages = {name: self._page(name) for name in (INDEX, WATCH)}

    def _bundle(self, root: Path) -> None:
        """Replace the modules of the pages by one each, and their styles by one."""
        names = [name for name in self._parts if re.fullmatch(r"\w+\.js", name) and name != BOOT]
        # Their indentation shows what is within a function.
        texts = {name: _COMMENT.sub(b"", (root / name).read_bytes()).decode() for name in names}
        for entry in ENTRIES:
            if entry in texts:
                self._parts[entry] = _Part.of(_INDENT.sub(b"", bundle(entry, texts).encode()), entry)
        for name in texts.keys() - set(ENTRIES):
            del self._parts[name]
        if styles := [self._parts.pop(name).content for name in STYLES if name in self._parts]:
            self._parts[STYLE] = _Part.of(b"".join(styles), STYLE)

    def index(self, base: str, name: str = INDEX) -> web.Response:
        """Return a page with this base path, given without a trailing slash."""
        text = self._pages[name].replace(BASE_TAG, f'<base href="{base}/">')
        headers = {"Cache-Control": "no-cache", "Content-Security-Policy": self._policy, "Vary": "Accept-Encoding"}
        response = web.Response(text=text, content_type="text/html", headers=headers)
        response.enable_compression()
        return response

    @property
    def names(self) -> list[str]:
        """The names of all files except the pages themselves."""
        return [name for name in self._parts if name not in (INDEX, WATCH)]

    def part(self, name: str, request: web.Request) -> web.Response:
        """Return one file. If the request's path has the current version, as in the page, it is cached for good.

        Raises ``KeyError`` for an unknown name; routes exist only for ``names``.
        """
        part = self._parts[name]
        kept = request.match_info.get("version") == self.version
        content, tag = part.content, part.tag
        headers = {"Cache-Control": IMMUTABLE if kept else "no-cache", "Content-Type": part.type}
        if part.packed is not None:
            headers["Vary"] = "Accept-Encoding"
            if "gzip" in request.headers.get("Accept-Encoding", ""):
                content, tag = part.packed, f'{part.tag[:-1]}-gzip"'
                headers["Content-Encoding"] = "gzip"
        headers["ETag"] = tag
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, headers=headers)

    def _page(self, name: str) -> str:
        if name not in self._parts:
            return _UNBUILT

        def preloads(tag: re.Match[str]) -> str:
            # A browser has few connections: what takes longest begins first.
            modules = sorted(self._modules(tag[1]), key=self._length, reverse=True)
            return "\n    ".join(tag[0].replace(tag[1], module) for module in modules)

        text = _PRELOAD.sub(preloads, _OTHER_STYLES.sub("", self._parts[name].content.decode()))
        return self._with_boot(_NAMED.sub(self._versioned, text))

    def _modules(self, name: str) -> list[str]:
        """Return a module and all that it imports at once, directly or not."""
        found = [name]
        for each in found:
            text = self._parts[each].content.decode() if each in self._parts else ""
            imported = [(PurePosixPath(each).parent / other).as_posix() for other in _IMPORTED.findall(text)]
            found += [other for other in dict.fromkeys(imported) if other not in found]
        return found

    def _length(self, name: str) -> int:
        return len(self._parts[name].content) if name in self._parts else 0

    def _with_boot(self, text: str) -> str:
        boot = self._parts.get(BOOT)
        if boot is None:
            return text
        digest = b64encode(hashlib.sha256(boot.content).digest()).decode()
        self._policy = CONTENT_SECURITY_POLICY.replace("script-src 'self'", f"script-src 'self' 'sha256-{digest}'")
        return _BOOT_SOURCE.sub(lambda _: f">{boot.content.decode()}</script>", text)

    def _versioned(self, found: re.Match[str]) -> str:
        attribute, name = found.groups()
        return f'{attribute}="{VERSIONS}/{self.version}/{name}' if name in self._parts else found[0]
