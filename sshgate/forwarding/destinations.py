"""Destinations and listeners of forwarded connections, and which of them a key and a profile allow. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from sshgate.access.identity import Restrictions
from sshgate.config.model import Address, Forward, Profile
from sshgate.errors import BadRequest, Denied

# Bytes of a unix socket's path on Linux, without the closing NUL.
LONGEST_PATH = 107
# Characters of a name (RFC 1035); an address is shorter.
LONGEST_HOST = 255
LOOPBACK = ("127.0.0.1", "::1")
_HOST = re.compile(r"(?:[A-Za-z0-9_.:][A-Za-z0-9_.:%-]*)?")


@dataclass(frozen=True, slots=True)
class Tcp(Address):
    """A TCP port on a host, whose name or address is as the client sent it (RFC 4254 section 7)."""


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


# --- what is allowed ---


def check_key(where: Destination | Listening, limits: Restrictions, listening: bool = False) -> None:
    """Check a forward against the restrictions of the key or certificate; needs no sandbox yet.

    ``listening``: the forward is a listener (-R).

    Raises:
        Denied: the key does not allow it.
        BadRequest: no valid port, host or path.
    """
    if not limits.port_forwarding:
        raise Denied("this key does not allow forwarding")
    permitted = limits.permit_listen if listening else limits.permit_open
    # As in sshd(8): literal names and addresses, no patterns, no lookup.
    if permitted is not None and not (
        isinstance(where, Tcp)
        and any(host in ("*", where.host) and port in (None, where.port) for host, port in permitted)
    ):
        raise Denied(f"this key does not allow forwarding to {where}; see permit{'listen' if listening else 'open'}=")
    _check_form(where, listening)


def check_profile(destination: Destination, profile: Profile, own: tuple[str, ...]) -> None:
    """Check a connection from inside the sandbox against its profile. Raises ``Denied``.

    ``own``: the result of ``own_addresses``; not empty where the destination is the sandbox itself.
    """
    forward = profile.forward
    inside = isinstance(destination, Unix) or bool(own)
    if inside and not forward.loopback:
        raise Denied(f"the profile {profile.name!r} does not allow forwarding into the sandbox")
    if not inside and not forward.elsewhere:
        raise Denied(f"only the sandbox's own localhost can be reached here, not {destination}")


def check_listening(profile: Profile) -> None:
    """Check that the profile allows listeners in its sandbox. Raises ``Denied``."""
    if not profile.forward.remote:
        raise Denied(f"the profile {profile.name!r} does not allow remote forwarding")


def offers_agent(forward: Forward, limits: Restrictions) -> bool:
    """Whether profile and key let programs in the sandbox use the client's agent."""
    return forward.agent and limits.agent_forwarding


def _check_form(where: Destination | Listening, listening: bool) -> None:
    if isinstance(where, Tcp):
        if where.port not in range(0 if listening else 1, 65_536):
            raise BadRequest(f"{where.port} is not a port")
        # A listener's host is not used. Any other may become an argument of socat or nc in the sandbox, see `plain`.
        if not listening and (len(where.host) > LONGEST_HOST or not _HOST.fullmatch(where.host)):
            raise BadRequest("the host is neither a name nor an address")
    elif isinstance(where, Unix):
        size = len(where.path.encode("utf-8", "surrogateescape"))
        if not 0 < size <= LONGEST_PATH or "\0" in where.path:
            raise BadRequest(f"the path of a unix socket has 1 to {LONGEST_PATH} bytes")
