"""The destinations and listeners of forwarded connections. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

# Bytes of a unix socket's path on Linux, without the closing NUL.
LONGEST_PATH = 107
# Characters of a name (RFC 1035); an address is shorter.
LONGEST_HOST = 255
LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP port on a host, whose name or address is as the client sent it (RFC 4254 section 7)."""

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
    """A unix socket for the client's authentication agent; the relay chooses its path."""

    def __str__(self) -> str:
        return "the agent"


Destination = Tcp | Unix
Listening = Tcp | Unix | Agent


def own_addresses(host: str, hostname: str = "", addresses: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The sandbox's own addresses that ``host`` refers to, in the order to try; empty where it is another host.

    ``hostname`` and ``addresses`` are the sandbox's, as far as they are known. No name is looked up, because the
    operator of the name server would decide what it refers to. Old numeric forms (``127.1``, ``0x7f000001``) count as
    names, and so as another host.
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
        # Linux connects to loopback for it; servers print it when they listen on every address.
        return (LOOPBACK[address.version == 6],)
    own = address.is_loopback or address in map(_number, addresses)
    return (str(address),) if own else ()


def _number(host: str) -> IPv4Address | IPv6Address | None:
    """The address, with an IPv4-mapped one as IPv4; ``None`` for a name, and for an address with a zone."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address
