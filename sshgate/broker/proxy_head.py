"""The head of a request to an HTTP proxy: ``CONNECT name:port``, or a whole ``http://`` URL (RFC 9110, 9112). Pure.

Strict: whatever two programs might read differently is refused, because the other one is a server outside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_HEAD = 32 * 1024
MOST_HEADERS = 100
# Digits of a body's length: no upload has a petabyte.
_LENGTH = re.compile(rb"\d{1,15}\Z")
_LINE = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]+) HTTP/1\.[01]\Z")
# Each part of these begins with what the part before cannot hold, so that no text makes them go back and forth.
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)\Z")
_AUTHORITY = re.compile(r"(?P<host>[^:\[\]/?#@]+|\[[^\[\]/?#@]*\])(?::(?P<port>\d{1,5}))?\Z")
_URL = re.compile(r"http://(?P<authority>[^/?#]*)(?P<path>(?:[/?][^#]*)?)\Z", re.IGNORECASE)
# What concerns one connection and not the request (RFC 9110 section 7.6.1), and what we write ourselves.
_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authorization proxy-authenticate te trailer transfer-encoding "
    b"upgrade host".split()
)


class BadHead(ValueError):
    """The request cannot be served. ``status``: of the answer. The text is a sentence for it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Connect:
    """A request for a connection to ``host``, as sent."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """A request for a plain ``http://`` URL. ``head`` is what its server gets, before a body of ``body`` bytes."""

    host: str
    port: int
    head: bytes
    body: int


def parse(head: bytes) -> Connect | Fetch:
    """Read a request's head, up to and with its empty line.

    Raises:
        BadHead: It is malformed, ambiguous, or nothing that the proxy does.
    """
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    found = _LINE.match(first)
    if not found:
        raise BadHead(400, "this is no request that a proxy can read")
    headers = _headers(lines)
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    if any(name.lower() == b"transfer-encoding" for name, _ in headers):
        raise BadHead(411, "a request through the proxy needs a Content-Length if it has a body")
    if len(lengths) > 1 or not all(_LENGTH.match(value) for value in lengths):
        raise BadHead(400, "the request has no clear Content-Length")
    body = int(lengths[0]) if lengths else 0
    method, target = found[1], found[2].decode("ascii")
    if method == b"CONNECT":
        if body:
            raise BadHead(400, "CONNECT has no body")
        host, port = _authority(target)
        if port is None:
            raise BadHead(400, "CONNECT needs a name and a port")
        return Connect(host, port)
    url = _URL.match(target)
    if not url:
        raise BadHead(400, "the proxy fetches http:// addresses; all others go through CONNECT")
    host, port = _authority(url["authority"])
    path = url["path"] if url["path"].startswith("/") else f"/{url['path']}"
    dropped = _HOP | {
        token.strip().lower() for name, value in headers if name.lower() == b"connection" for token in value.split(b",")
    }
    kept = b"".join(
        b"%b: %b\r\n" % (name, value)
        for name, value in headers
        if name.lower() not in dropped or name.lower() == b"content-length"
    )
    # One request for each connection: what comes after its body never reaches the server.
    lead = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, path.encode(), url["authority"].encode())
    return Fetch(host, port or 80, lead + kept + b"Connection: close\r\n\r\n", body)


def _headers(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    if len(lines) > MOST_HEADERS:
        raise BadHead(431, "the request has too many headers")
    found = [_HEADER.match(line) for line in lines]
    if not all(found):
        raise BadHead(400, "the request has a malformed header")
    return [(one[1], one[2].strip(b" \t")) for one in found if one]


def _authority(text: str) -> tuple[str, int | None]:
    found = _AUTHORITY.match(text)
    port = int(found["port"]) if found and found["port"] else None
    if not found or (port is not None and not 0 < port <= 65_535):
        raise BadHead(400, "the request names no host and port")
    return found["host"], port


def answer(status: int, reason: str, sentence: str) -> bytes:
    """Return a whole response that ends the connection. ``reason``: many clients show it and nothing else."""
    body = f"sshgate: {sentence}\n".encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        "X-Sshgate: egress\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
