"""Login names, and the identity that a successful authentication yields. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_network

from sshgate.config.values import ip_of, is_label, is_user

_network = lru_cache(maxsize=1024)(ip_network)


@dataclass(frozen=True, slots=True)
class LoginName:
    """A parsed login name ``user[+profile][=name[=session]]``."""

    user: str
    profile: str | None = None
    name: str | None = None
    session: str | None = None
    """A held session in the named sandbox."""

    @classmethod
    def parse(cls, text: str) -> LoginName:
        """Parse a login name. Raises ``ValueError`` unless the whole text is one."""
        # OpenSSH decodes the plus of ssh://USER+PROFILE@HOST to a blank. No name contains a blank, so undo that.
        text = text.replace(" ", "+") if "+" not in text else text
        rest, equals, name = text.partition("=")
        name, more, session = name.partition("=")
        user, plus, profile = rest.partition("+")
        if not is_user(user):
            raise ValueError("not a user name")
        if plus and not is_label(profile):
            raise ValueError("not a profile name")
        if equals and not is_label(name):
            raise ValueError("not a sandbox name")
        if more and not is_label(session):
            raise ValueError("not a session name")
        return cls(user, profile or None, name or None, session or None)

    def __str__(self) -> str:
        named = f"={self.name}" if self.name else ""
        return (
            self.user + (f"+{self.profile}" if self.profile else "") + named + f"={self.session}" * bool(self.session)
        )


@dataclass(frozen=True, slots=True)
class Restrictions:
    """Restrictions of the accepted key or certificate. They apply in addition to the policy."""

    command: bytes | None = None
    """Forced command, run instead of the requested one, which is passed in SSH_ORIGINAL_COMMAND."""
    terminal: bool = True
    port_forwarding: bool = True
    agent_forwarding: bool = True
    permit_open: tuple[tuple[str, int | None], ...] | None = None
    """The only hosts (``*``: any) and ports (``None``: any) that ``-L`` may connect to; ``None``: unrestricted."""
    permit_listen: tuple[tuple[str, int | None], ...] | None = None
    """The only addresses and ports that ``-R`` may listen on, in the same form."""
    environment: Mapping[str, bytes] = field(default_factory=dict)
    touch: bool = True
    """A security key must have been touched for the signature (user presence)."""
    verify: bool = False
    """A security key must have checked a PIN or fingerprint (user verification)."""

    @property
    def whole(self) -> bool:
        """Whether the key allows what a browser login or token does: any program in any sandbox of its user.

        That needs a terminal, no forced command and no fixed sandbox or profile.
        """
        fixed = {"SSHGATE_NAME", "SSHGATE_PROFILE"} & self.environment.keys()
        return self.command is None and self.terminal and not fixed


@dataclass(frozen=True, slots=True)
class Certified:
    """What must stay true of a certificate for a login that was made with it, besides its restrictions."""

    authority: str
    """``SHA256:...`` fingerprint of the key that signed it."""
    principals: tuple[str, ...]
    """Those of its principals that the authority is accepted for."""
    ends: float | None
    """End of its validity in seconds since the epoch; ``None``: unlimited."""
    sources: tuple[str, ...] | None
    """Networks that the client may connect from (``source-address``); ``None``: any."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who logged in, how it was proven, from where."""

    login: LoginName
    method: str
    """``publickey`` or ``certificate``; ``web-METHOD`` for a browser."""
    fingerprint: str
    """``SHA256:...`` of the key, or of the certificate's own key; for a browser its ``Principal.proof``."""
    source: str
    """The client's address, without the port."""
    source_port: int = 0
    server: str = ""
    """Our address and port that the client connected to, where known."""
    server_port: int = 0
    restrictions: Restrictions = Restrictions()
    certificate: Certified | None = None
    """Set for a login by certificate."""
    connection: str = ""
    """The id of the connection in logs and events."""
    arrived: Mapping[str, float] = field(default_factory=dict, compare=False)
    """When each stage of the login was over (monotonic clock), by ``telemetry.timings.Stage``."""

    @property
    def user(self) -> str:
        """The user's name."""
        return self.login.user


def comes_from(source: str, networks: Iterable[str] | None) -> bool:
    """Return whether an address is in one of these networks. ``None`` allows any address."""
    if networks is None:
        return True
    address = ip_of(source)
    return address is not None and any(address in _network(network) for network in networks)


def endpoint(name: object) -> tuple[str, int]:
    """Return address and port from a socket's name; ``("", 0)`` for anything but an IP socket.

    IPv4-mapped IPv6 addresses become IPv4; a scope (``%eth0``) is dropped.
    """
    if not isinstance(name, tuple) or len(name) < 2:
        return "", 0
    host = str(name[0]).partition("%")[0]
    return str(ip_of(host) or host), int(name[1])
