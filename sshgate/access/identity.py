"""Login names and identities. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from sshgate.config.names import is_label, is_user


@dataclass(frozen=True, slots=True)
class LoginName:
    """A parsed login name ``user[+profile][=name]``."""

    user: str
    profile: str | None = None
    name: str | None = None

    @classmethod
    def parse(cls, text: str) -> LoginName:
        """Raises ``ValueError`` for anything that is not exactly a login name."""
        # OpenSSH reads the plus of ssh://USER+PROFILE@HOST as a blank, which no name has.
        text = text.replace(" ", "+") if "+" not in text else text
        rest, equals, name = text.partition("=")
        user, plus, profile = rest.partition("+")
        if not is_user(user):
            raise ValueError("not a user name")
        if plus and not is_label(profile):
            raise ValueError("not a profile name")
        if equals and not is_label(name):
            raise ValueError("not a sandbox name")
        return cls(user, profile or None, name or None)

    def __str__(self) -> str:
        return self.user + (f"+{self.profile}" if self.profile else "") + (f"={self.name}" if self.name else "")


@dataclass(frozen=True, slots=True)
class Restrictions:
    """What the accepted key or certificate limits, whatever the policy would allow."""

    command: bytes | None = None
    """Run this instead of what is asked; the original goes to SSH_ORIGINAL_COMMAND."""
    terminal: bool = True
    port_forwarding: bool = True
    agent_forwarding: bool = True
    permit_open: tuple[tuple[str, int | None], ...] | None = None
    """The only hosts (``*``: any) and ports (``None``: any) that ``-L`` may go to; ``None``: no such list."""
    permit_listen: tuple[tuple[str, int | None], ...] | None = None
    """The only addresses and ports that ``-R`` may listen on, as above."""
    environment: Mapping[str, bytes] = field(default_factory=dict)
    touch: bool = True
    """A security key must have been touched for the signature."""
    verify: bool = False
    """A security key must have asked for its PIN or a finger."""

    @property
    def whole(self) -> bool:
        """Whether it opens what a browser or a token is: any sandbox of its user, with any program."""
        fixed = {"SSHGATE_NAME", "SSHGATE_PROFILE"} & self.environment.keys()
        return self.command is None and self.terminal and not fixed


@dataclass(frozen=True, slots=True)
class Certified:
    """What limits a login by a certificate, besides its restrictions, for as long as something rests on it."""

    authority: str
    """``SHA256:...`` of the key that signed it."""
    principals: tuple[str, ...]
    """Its names that the authority is accepted for."""
    ends: float | None
    """Seconds since the epoch; ``None``: never."""
    sources: tuple[str, ...] | None
    """Networks that its owner may come from; ``None``: any."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who logged in, how it was proven, from where."""

    login: LoginName
    method: str
    """``publickey`` or ``certificate``; web logins name theirs."""
    fingerprint: str
    """``SHA256:...`` of the key (of the certificate's own key), for logs."""
    source: str
    """The client's address, without the port."""
    source_port: int = 0
    server: str = ""
    """The address and port the client reached us at, as far as we can see them."""
    server_port: int = 0
    restrictions: Restrictions = Restrictions()
    certificate: Certified | None = None
    """Of a login by certificate."""
    connection: str = ""
    """The id under which logs and events speak of the connection."""
    arrived: Mapping[str, float] = field(default_factory=dict, compare=False)
    """When each stage of the login was over, by the names of ``telemetry.marks.Stage``."""

    @property
    def user(self) -> str:
        return self.login.user


def comes_from(source: str, networks: Iterable[str] | None) -> bool:
    """Whether an address is in one of these networks; ``None``: any will do."""
    if networks is None:
        return True
    try:
        address = ip_address(source)
    except ValueError:
        return False
    return any(address in ip_network(network) for network in networks)


def endpoint(name: object) -> tuple[str, int]:
    """Address and port of a socket's name; IPv4 in IPv6 as IPv4, without an interface name. Else empty and 0."""
    if not isinstance(name, tuple) or len(name) < 2:
        return "", 0
    host = str(name[0]).partition("%")[0]
    try:
        mapped = getattr(ip_address(host), "ipv4_mapped", None)
    except ValueError:
        mapped = None
    return str(mapped or host), int(name[1])
