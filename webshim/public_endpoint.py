"""The server's public address (origin, base path, cookie name) and what trusted proxies report. No I/O."""

from __future__ import annotations

import re
from hmac import compare_digest
from urllib.parse import urlsplit

from multidict import MultiMapping

from sshgate.access.identity import comes_from
from sshgate.config.model import Address, Proxy, Web
from sshgate.config.values import ip_of, is_loopback, is_user

_PREFIX = re.compile(r"(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._~-]+)+\Z")
_PORTS = {"http": 80, "https": 443}
# Values of X-Forwarded-Proto. For a WebSocket, Traefik sends `ws` or `wss`.
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

Headers = MultiMapping[str]
"""The headers of a request."""


class PublicEndpoint:
    """Where users reach this server, and which headers of a request may be trusted.

    ``peer`` is always the address of the TCP connection. Forwarding headers count only if it is a trusted proxy.
    """

    def __init__(self, web: Web, bound: Address, secret: str | None = None, node: str | None = None) -> None:
        """
        Args:
            bound: the listen address with its actual port.
            secret: what a proxy must send to log users in; ``None``: proxies cannot.
            node: the address of the node whose ports are forwarded here, where that is not visible from inside (a pod).
        """
        self._proxy = web.proxy or Proxy()
        self._secret = secret
        self._public = web.public_url
        self._scheme = "https" if web.tls is not None else "http"
        self._bound = bound
        self._loopback = is_loopback(bound)
        self._node = node
        self.base = urlsplit(web.public_url).path if web.public_url else ""
        """The path below which everything is served, without a trailing slash."""

    @property
    def url(self) -> str:
        """The URL that users open, without a trailing slash."""
        return self.url_at("127.0.0.1")

    @property
    def anywhere(self) -> bool:
        """Whether the public name is unknown: ``web.public_url`` is unset and all addresses are listened on."""
        return self._public is None and self._bound.host in ("0.0.0.0", "::")

    @property
    def nameless_proxy(self) -> bool:
        """Whether a proxy with an unknown name terminates TLS. Clients that bypass it are served too, without TLS."""
        return self._public is None and self._scheme == "http" and bool(self._proxy.addresses) and not self._loopback

    def url_at(self, host: str) -> str:
        """The URL for a user who has reached this machine at ``host``, which counts if the public name is unknown."""
        if self._public:
            return self._public
        host = (self._node or host) if self.anywhere else self._bound.host
        if self.nameless_proxy:
            # A link contains a login, so it must use the proxy's TLS.
            return url_origin(f"https://{Address(host, _PORTS['https'])}")
        return f"{self._scheme}://{Address(host, self._bound.port)}"

    def scheme(self, peer: str, headers: Headers) -> str:
        """Return the scheme that the browser uses, towards us or a trusted proxy: ``http`` or ``https``."""
        if self._public:
            return urlsplit(self._public).scheme
        forwarded = _SCHEMES.get(_only(headers, "X-Forwarded-Proto")) if self.trusted(peer) else None
        return forwarded or self._scheme

    def cookie(self, scheme: str) -> str:
        """Return the cookie's name.

        Browsers share cookies between all ports of a host. Without TLS the name contains the port, so that two
        gateways at one host do not overwrite each other's cookie.
        """
        port = urlsplit(self._public).port or 80 if self._public else self._bound.port
        return "__Host-sshgate" if scheme == "https" else f"sshgate-{port}"

    def base_of(self, peer: str, headers: Headers) -> str:
        """Return the base path: the prefix that a trusted proxy reports as stripped, else the configured path."""
        prefix = headers.get("X-Forwarded-Prefix", "").rstrip("/")
        return prefix if prefix and self.trusted(peer) and _PREFIX.match(prefix) else self.base

    def own_origin(self, origin: str, peer: str, headers: Headers) -> bool:
        """Return whether an Origin is exactly that of our page. There are no patterns and no partial matches."""
        if self._public:
            return origin == url_origin(self._public)
        port = self._bound.port
        if self._loopback:
            # DNS can make any other name resolve to loopback (DNS rebinding), so only these count.
            names = ("127.0.0.1", "localhost", "[::1]")
            return origin in {url_origin(f"{self._scheme}://{name}:{port}") for name in names}
        return origin == f"{self.scheme(peer, headers)}://{headers.get('Host', '')}"

    def trusted(self, peer: str) -> bool:
        """Return whether this address belongs to a trusted proxy."""
        return comes_from(peer, self._proxy.addresses)

    def source_of(self, peer: str, headers: Headers) -> str:
        """Return the client's address.

        It is the peer's, or behind trusted proxies the last address in X-Forwarded-For that is not one of them.
        """
        # Some proxies add their own header line after those of the client, so all lines are joined.
        forwarded = ",".join(headers.getall("X-Forwarded-For", [])) if self.trusted(peer) else ""
        for text in reversed([part.strip() for part in forwarded.split(",")]):
            if (address := ip_of(text)) is None:
                return peer
            peer = str(address)
            if not self.trusted(peer):
                return peer
        return peer

    def user_of(self, peer: str, headers: Headers) -> str | None:
        """Return the user that a trusted proxy has logged in; ``None`` without the right secret or a valid name."""
        if self._secret is None or not self.trusted(peer):
            return None
        shown = _only(headers, self._proxy.secret_header)
        if not compare_digest(shown.encode("utf-8", "surrogateescape"), self._secret.encode()):
            return None
        user = _only(headers, self._proxy.user_header)
        return user if is_user(user) else None


def url_origin(url: str) -> str:
    """Return ``scheme://host[:port]`` as browsers write it: lower case, without the scheme's default port."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def _only(headers: Headers, name: str) -> str:
    """Return a header that occurs exactly once, else an empty text: of two, one may come from the client."""
    lines = headers.getall(name, [])
    return lines[0] if len(lines) == 1 else ""
