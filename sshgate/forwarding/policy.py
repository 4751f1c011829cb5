"""Which forwards a key and a profile allow. Pure."""

from __future__ import annotations

import re

from sshgate.access.identity import Restrictions
from sshgate.config.model import Forward, Profile
from sshgate.errors import BadRequest, Denied
from sshgate.forwarding.values import LONGEST_HOST, LONGEST_PATH, Destination, Listening, Tcp, Unix

_HOST = re.compile(r"(?:[A-Za-z0-9_.:][A-Za-z0-9_.:%-]*)?")


def check_key(where: Destination | Listening, limits: Restrictions, listening: bool = False) -> None:
    """What the key or certificate says, before any sandbox is asked for. Raises ``Denied``, ``BadRequest``."""
    if not limits.port_forwarding:
        raise Denied("this key does not allow forwarding")
    permitted = limits.permit_listen if listening else limits.permit_open
    if permitted is not None and not (isinstance(where, Tcp) and _permits(permitted, where)):
        raise Denied(f"this key does not allow forwarding to {where}; see permit{'listen' if listening else 'open'}=")
    _check_form(where, listening)


def check_profile(destination: Destination, profile: Profile, own: tuple[str, ...]) -> None:
    """What the profile says to a connection from inside its sandbox. Raises ``Denied``.

    ``own``: the sandbox's own addresses that the destination means, see ``own_addresses``.
    """
    forward = profile.forward
    inside = isinstance(destination, Unix) or bool(own)
    if inside and not forward.loopback:
        raise Denied(f"the profile {profile.name!r} does not allow forwarding into the sandbox")
    if not inside and not forward.elsewhere:
        raise Denied(f"only the sandbox's own localhost can be reached here, not {destination}")


def check_listening(profile: Profile) -> None:
    """What the profile says to a listener in its sandbox. Raises ``Denied``."""
    if not profile.forward.remote:
        raise Denied(f"the profile {profile.name!r} does not allow remote forwarding")


def offers_agent(forward: Forward, limits: Restrictions) -> bool:
    """Whether programs in the sandbox may use the client's agent."""
    return forward.agent and limits.agent_forwarding


def _permits(permitted: tuple[tuple[str, int | None], ...], where: Tcp) -> bool:
    # As sshd(8) says: literal names and addresses, no pattern, no lookup.
    return any(host in ("*", where.host) and port in (None, where.port) for host, port in permitted)


def _check_form(where: Destination | Listening, listening: bool) -> None:
    if isinstance(where, Tcp):
        if where.port not in range(0 if listening else 1, 65_536):
            raise BadRequest(f"{where.port} is not a port")
        # A listener's host is not used. Any other may become a word of socat's or nc's in the sandbox, see `plain`.
        if not listening and (len(where.host) > LONGEST_HOST or not _HOST.fullmatch(where.host)):
            raise BadRequest("the host is neither a name nor an address")
    elif isinstance(where, Unix):
        size = len(where.path.encode("utf-8", "surrogateescape"))
        if not 0 < size <= LONGEST_PATH or "\0" in where.path:
            raise BadRequest(f"the path of a unix socket has 1 to {LONGEST_PATH} bytes")
