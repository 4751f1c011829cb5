"""Where this server is, as the world sees it, and who is on the other side: origins, base path, proxies. No I/O."""

from __future__ import annotations

import re
from hmac import compare_digest
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Protocol
from urllib.parse import urlsplit

from sshgate.config.model import Address, Proxy, Web
from sshgate.config.names import is_user
from sshgate.config.values import is_loopback

_PREFIX = re.compile(r"(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._~-]+)+\Z")
_PORTS = {"http": 80, "https": 443}
# What proxies say of how a browser talks to them; of a WebSocket Traefik says `ws` or `wss`.
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Headers(Protocol):
    """The headers of a request, in any case, with all their lines."""

    def get(self, name: str, default: str, /) -> str:
        """The first line of this name."""

    def getall(self, name: str, default: list[str], /) -> list[str]:
        """All lines of this name."""


class PublicEndpoint:
    """What of a request may be believed. Headers are given with all their lines, in any case."""

    def __init__(self, web: Web, bound: Address, secret: str | None = None, node: str | None = None) -> None:
        """``bound`` is the address with the port that was got; ``secret`` what the proxy must send.

        ``node`` is the address of the machine whose ports lead here, where this program does not see it itself.
        """
        self._proxy = web.proxy or Proxy()
        self._networks = [_network(text) for text in self._proxy.addresses]
        self._secret = secret
        self._public = web.public_url
        self._scheme = "https" if web.tls is not None else "http"
        self._bound = bound
        self._loopback = is_loopback(bound)
        self._node = node
        self.base = urlsplit(web.public_url).path if web.public_url else ""
        """The path that all others begin with, without a trailing slash."""

    @property
    def url(self) -> str:
        """What people open, without a trailing slash."""
        return self.url_at("127.0.0.1")

    @property
    def anywhere(self) -> bool:
        """Whether nobody has said by which name people come: every address of this machine is listened on."""
        return self._public is None and self._bound.host in ("0.0.0.0", "::")

    @property
    def nameless_proxy(self) -> bool:
        """Whether TLS is a proxy's whose name nobody has said; then who comes past it is served too, without TLS."""
        return self._public is None and self._scheme == "http" and bool(self._networks) and not self._loopback

    def url_at(self, host: str) -> str:
        """The same for somebody who has reached this machine at ``host``, where every address is listened on."""
        if self._public:
            return self._public
        host = (self._node or host) if self.anywhere else self._bound.host
        if self.nameless_proxy:
            # A link holds a login: by the proxy's TLS, not past it.
            return url_origin(f"https://{Address(host, _PORTS['https'])}")
        return f"{self._scheme}://{Address(host, self._bound.port)}"

    def scheme(self, peer: str, headers: Headers) -> str:
        """How the browser of this request talks, to us or to a proxy: ``http`` or ``https``."""
        if self._public:
            return urlsplit(self._public).scheme
        said = _SCHEMES.get(_only(headers, "X-Forwarded-Proto")) if self.trusted(peer) else None
        return said or self._scheme

    def cookie(self, scheme: str) -> str:
        """What the cookie is called. Without TLS cookies know no ports: two gateways at one host must not share it."""
        port = urlsplit(self._public).port or 80 if self._public else self._bound.port
        return "__Host-sshgate" if scheme == "https" else f"sshgate-{port}"

    def base_of(self, peer: str, headers: Headers) -> str:
        """The base path for this request: what a trusted proxy says that it has stripped, else the configured one."""
        prefix = headers.get("X-Forwarded-Prefix", "").rstrip("/")
        return prefix if prefix and self.trusted(peer) and _PREFIX.match(prefix) else self.base

    def own_origin(self, origin: str, peer: str, headers: Headers) -> bool:
        """Whether a page of this origin is ours: compared as a whole, never in parts or by patterns."""
        if self._public:
            return origin == url_origin(self._public)
        port = self._bound.port
        if self._loopback:
            # Any name could be made to point at loopback; these cannot.
            names = ("127.0.0.1", "localhost", "[::1]")
            return origin in {url_origin(f"{self._scheme}://{name}:{port}") for name in names}
        return origin == f"{self.scheme(peer, headers)}://{headers.get('Host', '')}"

    def trusted(self, peer: str) -> bool:
        """Whether this address is a proxy's that is believed."""
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)

    def source_of(self, peer: str, headers: Headers) -> str:
        """The client's address: the peer's, or what trusted proxies say, the last one that is not a proxy itself."""
        # Some proxies add a line to those that the client sent.
        said = ",".join(headers.getall("X-Forwarded-For", [])) if self.trusted(peer) else ""
        for text in reversed([part.strip() for part in said.split(",")]):
            try:
                ip_address(text)
            except ValueError:
                return peer
            peer = text
            if not self.trusted(peer):
                return peer
        return peer

    def user_of(self, peer: str, headers: Headers) -> str | None:
        """The user whom a trusted proxy names and vouches for by its secret."""
        if self._secret is None or not self.trusted(peer):
            return None
        shown = _only(headers, self._proxy.secret_header)
        if not compare_digest(shown.encode("utf-8", "surrogateescape"), self._secret.encode()):
            return None
        user = _only(headers, self._proxy.user_header)
        return user if is_user(user) else None


def url_origin(url: str) -> str:
    """``scheme://host[:port]`` as browsers write it: in lower case, without the scheme's own port."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def _only(headers: Headers, name: str) -> str:
    """A header that stands there once; of two, one may be the client's own."""
    lines = headers.getall(name, [])
    return lines[0] if len(lines) == 1 else ""


def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text)
