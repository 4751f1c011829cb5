"""Single values: valid names of users, profiles and variables, and parsers for the configuration file. Pure.

Each parser takes the text as written. It raises ``ValueError`` with a clause for the author of the file if the text
is invalid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from sshgate.config.model import Address

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_LONGEST = 3660 * 86_400.0
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+\Z")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_SIZE = re.compile(r"(\d+)(B|[kMGT]|[KMGT]i)\Z")
_QUANTITY = re.compile(r"\+?(\d+\.?\d*|\.\d+)([num]|[kMGTPE]|[KMGTPE]i|[eE][+-]?\d{1,2})?\Z")
_UNITS = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "B": 1,
    "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
    "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60,
}  # fmt: skip
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*\Z"
)
_URL_PATH = re.compile(r"(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._~-]+)*/?\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_CREDENTIAL = re.compile(
    r"[A-Z0-9_]+_(API_KEY|ACCESS_KEY|TOKEN|SECRET|PASSPHRASE)|AWS_BEARER_TOKEN_BEDROCK|ANTHROPIC_CUSTOM_HEADERS"
)
# A user's name is also the name of the file with their keys. `+` and `=` are separators in login names.
# `a.b@c`, `a_` and `_a` are names; `.`, `..` and `-x` are not.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,127}\Z")
# Profile and sandbox names become Kubernetes label values and parts of pod names.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")
# The page knows this pattern as well (webshim/static/api.js).
_GIVEN = re.compile(r"web-[0-9a-f]{10}\Z")

FORBIDDEN_VARIABLES = (
    "LD_*", "PATH", "BASH_*", "ENV", "IFS", "SHELLOPTS", "BASHOPTS", "SHELL", "HOME", "USER", "LOGNAME"
)  # fmt: skip
"""Patterns of variables that are never accepted from clients, whatever an operator lists.

A client could use them to change which code a program runs, even that of a forced command.
"""

# Characters of a profile's description.
LONGEST_DESCRIPTION = 120


def is_user(text: str) -> bool:
    """Whether ``text`` can name a user: 1-128 of A-Z, a-z, 0-9 and ``._@-``, not beginning with ``.@-``."""
    return _USER.match(text) is not None


def is_label(text: str) -> bool:
    """Whether ``text`` can name a profile or a sandbox: 1-40 of a-z, 0-9 and inner ``-``."""
    return _LABEL.match(text) is not None


def given_name(random: bytes) -> str:
    """The name of a sandbox whose user gave none; ``random`` are five bytes."""
    return f"web-{random.hex()}"


def is_given(name: str | None) -> TypeGuard[str]:
    """Whether a sandbox has this name from the gateway. Such a sandbox ends with its session, and has no home."""
    return name is not None and _GIVEN.match(name) is not None


def is_variable(text: str) -> bool:
    """Whether ``text`` can name an environment variable that shells can set."""
    return _VARIABLE.match(text) is not None


def matches(text: str, patterns: Iterable[str]) -> bool:
    """Whether one of the shell patterns matches the text as a whole."""
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def duration(text: str) -> float:
    """Parse a duration such as ``30s``, ``8h``, ``1h30m``, ``250ms`` or ``0`` into seconds."""
    if text == "0":
        return 0.0
    if re.fullmatch(r"\d+(\.\d+)?", text):
        raise ValueError(f"a duration needs its unit: {text}s, {text}m, {text}h or {text}d")
    if re.fullmatch(r"\d+(:\d+)+", text):
        raise ValueError(f"{text} is no duration, and YAML reads it as a number to the base 60: write 90s or 1h30m")
    if not _DURATION.match(text):
        raise ValueError(f"{text!r} is no duration: write 30s, 10m, 8h or 1d")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    if seconds > _LONGEST:
        raise ValueError(f"{text} is longer than ten years")
    return seconds


def size(text: str) -> int:
    """Parse a size such as ``512Ki``, ``1Gi``, ``4G`` or ``100B`` into bytes."""
    if re.fullmatch(r"\d+", text):
        raise ValueError(f"a size needs its unit: {text}Mi, {text}Gi, or {text}B for bytes")
    found = _SIZE.match(text)
    if not found:
        raise ValueError(f"{text!r} is no size: write 512Ki, 64Mi or 1Gi")
    return int(found[1]) * int(_UNITS[found[2]])


def address(text: str) -> Address:
    """Parse ``host:port``, with an IPv6 host in brackets."""
    if re.fullmatch(r"\d+", text):
        raise ValueError(f"an address needs a host and a port: 127.0.0.1:{text} or 0.0.0.0:{text}")
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65_535:
        raise ValueError(f"{text!r} is no address: write host:port with a port of 0-65535, such as 127.0.0.1:2222")
    if host in ("", "*"):
        raise ValueError(f'an address needs a host: "127.0.0.1:{port}" for this machine only, "0.0.0.0:{port}" for all')
    if ":" in host and not bracketed:
        raise ValueError(f'an IPv6 address stands in brackets and quotes: "[{host}]:{port}"')
    host = host[1:-1] if bracketed else host
    try:
        # Also normalises the address: ::0001 becomes ::1.
        host = str(ip_address(host))
    except ValueError:
        if bracketed or re.fullmatch(r"[\d.]+", host) or not _HOST_NAME.match(host):
            raise ValueError(f"{host!r} is neither an IP address nor a host name") from None
    return Address(host, int(port))


def probe(text: str) -> str:
    """Check what launchers are to look at: ``auto``, ``off``, or an IP address with a port."""
    if text not in ("auto", "off"):
        host = address(text).host
        if ip_of(host) is None:
            raise ValueError(f"{host!r} is no IP address: a name could not be looked up once it is closed")
    return text


def ip_of(text: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address in ``text``, without a zone, and an IPv4-mapped one as IPv4; ``None`` if it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (None if isinstance(address, IPv4Address) else address.ipv4_mapped) or address


def is_loopback(listen: Address) -> bool:
    """Whether only this machine can reach the address. Of host names, only ``localhost`` counts: none is resolved."""
    parsed = ip_of(listen.host)
    return parsed.is_loopback if parsed is not None else listen.host == "localhost"


def public_url(text: str) -> str:
    """Check the URL of the web page, ``http[s]://host[:port][/path]``; returned without a trailing slash."""
    url = urlsplit(text)
    try:
        right = url.scheme in ("http", "https") and url.hostname is not None and (url.port or 1) > 0
    except ValueError:
        right = False
    if not right or url.query or url.fragment or url.username is not None or not _URL_PATH.match(url.path):
        raise ValueError(f"{text!r} is no address of a page: write https://host or https://host/path")
    return text.rstrip("/")


def collector(text: str) -> str:
    """Check the URL of an OTLP collector, as ``public_url``. The error never quotes the text."""
    try:
        return public_url(text)
    except ValueError:  # not chained and not quoted: the text may hold a password
        raise ValueError("this is no address of a collector: write http://host:4318 or https://host/path") from None


def upstream(text: str) -> str:
    """Check the base URL of a provider of models; returned without a trailing slash. The error never quotes the text.

    Keys go there: it is https, but for this machine and for services of the cluster (``NAME.NAMESPACE.svc``).
    """
    try:
        url = urlsplit(public_url(text))
    except ValueError:  # not chained and not quoted: the text may hold a password
        raise ValueError("this is no address of a provider: write https://host or https://host/path") from None
    host = url.hostname or ""
    inside = host.endswith((".svc", ".svc.cluster.local")) or is_loopback(Address(host, 0))
    if url.scheme != "https" and not inside:
        raise ValueError(f"keys and prompts would cross the network to {host} in the clear: write https://{host}")
    return text.rstrip("/")


def is_credential(variable: str) -> bool:
    """Whether a variable of this name holds a key or token of a provider of models."""
    return _CREDENTIAL.fullmatch(variable) is not None


def share(text: str) -> float:
    """Parse a number from 0 to 1."""
    if not re.fullmatch(r"0?\.\d+|[01](\.0*)?", text):
        raise ValueError(f"{text!r} is no share: write a number from 0 to 1, such as 0.1")
    return float(text)


def dollars(text: str) -> float:
    """Parse an amount of money, such as ``20`` or ``0.50``."""
    if not re.fullmatch(r"\d{1,9}(\.\d{1,4})?", text) or float(text) == 0:
        raise ValueError(f"{text!r} is no amount in US dollars: write 20 or 0.50")
    return float(text)


def network(text: str) -> str:
    """Check an IP address or network, such as ``10.0.0.0/8``."""
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is neither an address nor a network such as 10.0.0.0/8") from error
    return text


def private(text: str) -> str:
    """Check a network of private addresses. None has all of them: cloud metadata and this machine are among these."""
    found = ip_network(network(text))
    if found.prefixlen < (8 if found.version == 4 else 7):
        raise ValueError(f"{text!r} has cloud metadata and this machine as well: write your own networks one by one")
    return text


def quantity(text: str) -> str:
    """Check a Kubernetes resource quantity; returned unchanged."""
    quantity_value(text)
    return text


def quantity_value(text: str) -> float:
    """Parse a Kubernetes resource quantity such as ``250m``, ``2``, ``4Gi`` or ``1e9``."""
    found = _QUANTITY.match(text)
    if not found:
        raise ValueError(f"{text!r} is no Kubernetes quantity: write 100m, 2, 256Mi or 4Gi")
    unit = found[2] or "e0"
    return float(found[1]) * (_UNITS.get(unit) or float(f"1{unit}"))


def _matching(pattern: str | re.Pattern[str], clause: str) -> Callable[[str], str]:
    """Return a check that all of a text matches the pattern; ``clause`` follows the text in the error."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} {clause}")
        return text

    return check


server_tool = _matching(r"[a-z][a-z0-9_]*", "is no tool's name: write one such as web_search, or mcp, or url")
"""Checks the name of a tool that a provider runs."""
header = _matching(r"[A-Za-z][A-Za-z0-9-]*", "cannot be the name of a header")
variable = _matching(_VARIABLE, "cannot be the name of an environment variable")
# RFC 1123. Gateway names follow the same rule as Kubernetes' namespaces.
dns_label = _matching(
    r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "is no Kubernetes name: use 1-63 of a-z, 0-9 and inner '-'"
)
absolute = _matching(r"/[^\0]*", "is not a path that begins with /")
image = _matching(r"\S+", "is no image name: write name:tag or registry/name:tag")
"""Checks an image reference. All but blanks is left to the container runtime."""


def description(text: str) -> str:
    """Check a text that is shown in one line."""
    if len(text) > LONGEST_DESCRIPTION or not text.isprintable():
        raise ValueError(f"a description is one line of at most {LONGEST_DESCRIPTION} characters")
    return text


def accepted_variables(pattern: str) -> str:
    """Check a pattern of variables that clients may set. It must not match those that change which program runs."""
    for name in FORBIDDEN_VARIABLES:
        if fnmatchcase(name, pattern) or fnmatchcase(pattern, name):
            raise ValueError(f"{pattern!r} would let clients set {name}; name the variables or a longer prefix")
    if not re.fullmatch(r"[A-Za-z0-9_*?\[\]!-]+", pattern):
        raise ValueError(f"{pattern!r} can match no variable's name")
    return pattern


def merged(old: Any, new: Any) -> Any:
    """Merge two values of a raw mapping: mappings recursively, anything else is replaced by ``new``."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}
    return new
