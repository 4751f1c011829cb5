"""The connections to the API server: how many, how long they are kept, and how a dead one is detected."""

from __future__ import annotations

import os
import socket
from typing import Any

import aiohttp

from sshgate.providers.kubernetes.api.credentials import Credentials
from sshgate.providers.kubernetes.api.websocket import Connector

# Seconds an idle connection is kept for the next request; Go's server closes it after 90.
KEEP_CONNECTION = 60.0


def session_of(known: Credentials) -> aiohttp.ClientSession:
    """An HTTP client session that uses these credentials' TLS context."""
    connector = Connector(
        # Every exec holds a connection: a limit would make the next login wait silently.
        limit=0,
        ssl=known.tls if known.tls is not None else True,
        keepalive_timeout=KEEP_CONNECTION,
        socket_factory=_socket,
    )
    # Only if a proxy is configured: trust_env also makes aiohttp look for a netrc file on every request.
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"))
    return aiohttp.ClientSession(connector=connector, trust_env=proxied, auto_decompress=True)


def _socket(address: Any) -> socket.socket:
    """A socket that detects within about a minute that the peer has vanished."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 60_000)):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
