"""Where a forwarded connection goes, and what one is. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

# What Linux lets a socket's path be, without the closing NUL.
LONGEST_PATH = 107
# RFC 1035; an address is shorter.
LONGEST_HOST = 255
LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP port, by a host's name or address as the client wrote it (RFC 4254 section 7)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unix:
    """A unix socket, by its path in the sandbox."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class Agent:
    """A socket that stands for the client's authentication agent; it gets a path of its own."""

    def __str__(self) -> str:
        return "the agent"


Destination = Tcp | Unix
Listening = Tcp | Unix | Agent


def own_addresses(host: str, hostname: str = "", addresses: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The sandbox's own addresses that ``host`` means, in the order to be tried; none where it means another host.

    ``hostname`` and ``addresses`` are the sandbox's, as far as they are known. No name is looked up: what a name stands
    for is decided by whoever runs the name server. Numbers in old forms (``127.1``, ``0x7f000001``) are names here,
    and so are another host.
    """
    name = host.rstrip(".").lower()
    if name in ("", "localhost", "ip6-localhost") or name.endswith(".localhost"):
        return LOOPBACK
    if hostname and name == hostname.lower():
        return (*LOOPBACK, *addresses)
    address = _number(host)
    if address is None:
        return ()
    if address.is_unspecified:
        # As Linux connects to it; servers print it where they listen on every address.
        return (LOOPBACK[address.version == 6],)
    own = address.is_loopback or address in map(_number, addresses)
    return (str(address),) if own else ()


def _number(host: str) -> IPv4Address | IPv6Address | None:
    """The address that ``host`` is; ``None`` for a name, and for an address with a zone."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address
