"""Parser for one line of an OpenSSH authorized_keys file (sshd(8)). Pure, except that it uses the local time zone."""

from __future__ import annotations

import base64
import binascii
import calendar
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from sshgate.access.identity import Restrictions
from sshgate.config.values import ip_of, is_variable

_ED25519 = "ssh-ed25519"
_RSA = "ssh-rsa"
_CURVES = {  # curve name and length in bytes of an uncompressed point
    "ecdsa-sha2-nistp256": (b"nistp256", 65),
    "ecdsa-sha2-nistp384": (b"nistp384", 97),
    "ecdsa-sha2-nistp521": (b"nistp521", 133),
    "sk-ecdsa-sha2-nistp256@openssh.com": (b"nistp256", 65),
}
_SK_ED25519 = "sk-ssh-ed25519@openssh.com"
KEY_TYPES = frozenset({_ED25519, _RSA, _SK_ED25519, *_CURVES})
RSA_BITS = range(2048, 16_385)

_TYPE_WORD = re.compile(r"(sk-)?(ssh|ecdsa)-[\w@.-]+\Z")
_EXPIRY = re.compile(r"(\d{8})(\d{4}(?:\d{2})?)?(Z?)\Z")
_OPTION = re.compile(r'([A-Za-z0-9@.-]+)(?:="((?:\\"|[^"])*)")?(,|\Z)')
_PRIVILEGES = {"pty": "terminal", "port-forwarding": "port_forwarding", "agent-forwarding": "agent_forwarding"}
# Options for security keys, and the field of `Restrictions` that each sets.
_PRESENCE = {"touch-required": "touch", "verify-required": "verify"}
# Features that are never offered here, so that neither forbidding nor allowing them has an effect.
_WITHOUT_EFFECT = frozenset({"x11-forwarding", "user-rc"})

Network = IPv4Network | IPv6Network


class LineRefused(ValueError):
    """The line grants no access. The message says why; of the line it quotes only types, option names and ``from=``."""


@dataclass(frozen=True, slots=True)
class SourcePattern:
    """One element of ``from=``: a network, or an address with wildcards (``network`` is ``None``).

    ``negated``: it began with ``!`` and excludes what it matches.
    """

    negated: bool
    network: Network | None
    wildcard: str

    def matches(self, address: IPv4Address | IPv6Address) -> bool:
        """Return whether the address matches the pattern; ``negated`` is not applied."""
        if self.network is not None:
            return address in self.network
        # sshd's patterns have no character sets, so `[` is a literal.
        return fnmatchcase(str(address), self.wildcard.replace("[", "[[]"))


@dataclass(frozen=True, slots=True)
class KeyLine:
    """A parsed line: a key with its options."""

    blob: bytes
    """The key in its SSH wire encoding (RFC 4253 section 6.6)."""
    authority: bool = False
    """The key signs certificates (``cert-authority``) and cannot log in itself."""
    principals: frozenset[str] | None = None
    """For an authority: the certificate must contain one of these; ``None``: the user's name."""
    sources: tuple[SourcePattern, ...] | None = None
    expires: float | None = None
    """Seconds since the epoch."""
    has_options: bool = False
    restrictions: Restrictions = field(default_factory=Restrictions)
    notes: tuple[str, ...] = ()
    """Warnings for the operator about options without effect."""
    fingerprint: str = field(init=False)
    """``SHA256:...`` as OpenSSH shows it. Computed once, because open browser sessions compare it every few seconds."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint_of(self.blob))

    def allows(self, source: str, now: float) -> bool:
        """Return whether ``expiry-time`` and ``from`` allow a client at this address at ``now`` (epoch seconds)."""
        if self.expires is not None and now >= self.expires:
            return False
        return self.sources is None or _from_matches(self.sources, source)


def fingerprint_of(blob: bytes) -> str:
    """Return the ``SHA256:...`` fingerprint of a key in SSH wire encoding, as OpenSSH shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def parse(text: str) -> KeyLine | None:
    """Parse one line; ``None`` for an empty line or a comment.

    Raises ``LineRefused`` for a key that is not accepted, and for options that are unknown or malformed: a line whose
    restrictions are not understood must not grant access.
    """
    text = text.strip(" \t\r\f\v")
    if not text or text.startswith("#"):
        return None
    options, key = "", text
    if not _TYPE_WORD.match(re.split(r"[ \t]", text, maxsplit=1)[0]):
        options, key = _split_options(text)
    words = key.split(None, 2)
    if len(words) < 2:
        raise LineRefused("there is no key on this line")
    line = KeyLine(decode_key(words[0], words[1]), has_options=bool(options))
    seen: set[str] = set()
    for name, value in _options(options):
        line = _apply(line, name, value, seen)
    if line.principals is not None and not line.authority:
        raise LineRefused("principals= has a meaning only beside cert-authority")
    if line.restrictions.verify and not line.authority and not words[0].startswith("sk-"):
        line = _note(line, "verify-required has a meaning for security keys only")
    return line


def decode_key(kind: str, encoded: str) -> bytes:
    """Decode a public key from its type and base64 text, and return its wire encoding.

    Raises ``LineRefused`` when it is damaged, or its type or strength is not accepted.
    """
    if "-cert-v01@" in kind:
        raise LineRefused("this is a certificate; name the authority that signed it, with cert-authority")
    if not _TYPE_WORD.match(kind):
        raise LineRefused("the options are not followed by a key")
    if kind not in KEY_TYPES:
        raise LineRefused(f"keys of type {kind[:40]!r} are not accepted; use ssh-ed25519")
    try:
        blob = base64.b64decode(encoded, validate=True)
        _check(kind, blob)
    except (binascii.Error, EOFError) as error:
        raise LineRefused("the key is damaged; copy the whole line of the .pub file again") from error
    return blob


def acceptable(blob: bytes) -> bool:
    """Return whether a key in wire encoding is valid and of an accepted type and strength."""
    try:
        kind = next(_strings(blob), b"").decode("ascii", "replace")
        if kind in KEY_TYPES:
            _check(kind, blob)
            return True
    except (LineRefused, EOFError):
        pass
    return False


# --- the key ---


def _check(kind: str, blob: bytes) -> None:
    """Check a key blob. Raises ``EOFError`` if its parts do not fit its type, ``LineRefused`` for a weak RSA key."""
    parts = list(_strings(blob))
    if not parts or parts[0] != kind.encode():
        raise EOFError
    shape = [len(part) for part in parts[1:]]
    if kind == _RSA:
        if len(shape) != 2:
            raise EOFError
        bits = int.from_bytes(parts[2], "big", signed=True).bit_length()
        if bits not in RSA_BITS:
            raise LineRefused(f"the RSA key has {bits} bits; {RSA_BITS.start} are the least that is accepted")
        return
    if kind in _CURVES:
        curve, length = _CURVES[kind]
        fits = parts[1:2] == [curve] and shape[1:2] == [length] and parts[2][0] == 4
        rest = shape[2:]
    else:
        fits = shape[:1] == [32]
        rest = shape[1:]
    # A security key has one more part, its application, usually `ssh:`.
    if not fits or len(rest) != (1 if kind.startswith("sk-") else 0):
        raise EOFError


def _strings(blob: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(blob):
        end = at + 4 + int.from_bytes(blob[at : at + 4], "big")
        if at + 4 > len(blob) or end > len(blob):
            raise EOFError
        yield blob[at + 4 : end]
        at = end


# --- its options ---


def _split_options(text: str) -> tuple[str, str]:
    """Split at the first blank outside quotes, which ends the options. ``\\"`` is an escaped quote."""
    quoted = False
    at = 0
    while at < len(text):
        if text[at] == "\\" and text[at + 1 : at + 2] == '"':
            at += 1
        elif text[at] == '"':
            quoted = not quoted
        elif text[at] in " \t" and not quoted:
            return text[:at], text[at:].strip()
        at += 1
    if quoted:
        raise LineRefused("a double quote is not closed")
    raise LineRefused("this is neither a key nor options and a key")


def _options(text: str) -> Iterator[tuple[str, str | None]]:
    at = 0
    while at < len(text):
        found = _OPTION.match(text, at)
        if found is None or (found[3] == "," and found.end() == len(text)):
            raise LineRefused('the options are not of the form name or name="value", separated by commas')
        value = found[2]
        yield found[1].lower(), None if value is None else value.replace('\\"', '"')
        at = found.end()


def _apply(line: KeyLine, name: str, value: str | None, seen: set[str]) -> KeyLine:
    if value is not None and name in _VALUED:
        if name in seen and name not in _REPEATABLE:
            raise LineRefused(f"{name}= is there twice")
        seen.add(name)
        return _VALUED[name](line, value)
    if value is None and name == "restrict":
        return _restrict(line, terminal=False, port_forwarding=False, agent_forwarding=False)
    if value is None and name == "cert-authority":
        return replace(line, authority=True)
    plain = name.removeprefix("no-")
    if value is None and plain in _PRIVILEGES:
        return _restrict(line, **{_PRIVILEGES[plain]: plain == name})
    if value is None and plain in _PRESENCE:
        return _restrict(line, **{_PRESENCE[plain]: plain == name})
    if value is None and plain in _WITHOUT_EFFECT:
        return _note(line, f"{plain} is not offered here") if plain == name else line
    if name in _VALUED:
        raise LineRefused(f'{name} needs a value: {name}="..."')
    raise LineRefused(f"the option {name[:40]!r} is unknown or cannot be kept here")


def _note(line: KeyLine, note: str) -> KeyLine:
    return replace(line, notes=(*line.notes, note))


def _restrict(line: KeyLine, **changes: object) -> KeyLine:
    return replace(line, restrictions=replace(line.restrictions, **changes))  # type: ignore[arg-type]


def _command(line: KeyLine, value: str) -> KeyLine:
    if not value or "\0" in value:
        raise LineRefused("command= holds no command")
    return replace(line, restrictions=replace(line.restrictions, command=value.encode("utf-8", "surrogateescape")))


def _environment(line: KeyLine, value: str) -> KeyLine:
    name, equals, text = value.partition("=")
    if not equals or not is_variable(name) or "\0" in text:
        raise LineRefused('environment= is not of the form environment="NAME=value"')
    # As in OpenSSH, the first of several values for one name counts.
    merged = {name: text.encode("utf-8", "surrogateescape"), **line.restrictions.environment}
    return replace(line, restrictions=replace(line.restrictions, environment=merged))


def _principals(line: KeyLine, value: str) -> KeyLine:
    names = frozenset(value.split(","))
    if "" in names:
        raise LineRefused("principals= holds an empty name")
    return replace(line, principals=names)


def _expiry(line: KeyLine, value: str) -> KeyLine:
    found = _EXPIRY.match(value)
    if not found:
        raise LineRefused("expiry-time= is not of the form YYYYMMDD[HHMM[SS]][Z]")
    try:
        moment = time.strptime(found[1] + (found[2] or "0000").ljust(6, "0"), "%Y%m%d%H%M%S")
        expires = float(calendar.timegm(moment)) if found[3] else time.mktime(moment)
    except (ValueError, OverflowError) as error:
        raise LineRefused("expiry-time= is no date of the calendar") from error
    return replace(line, expires=expires if line.expires is None else min(line.expires, expires))


def _permit(line: KeyLine, field: str, value: str, *, host_needed: bool) -> KeyLine:
    """Add one ``HOST:PORT`` that may be forwarded. The host may stand in brackets; ``*`` stands for any."""
    host, colon, port = value.rpartition(":")
    if not port or (host_needed and not colon) or (port != "*" and not (port.isdecimal() and 0 < int(port) < 65_536)):
        raise LineRefused("permitopen= and permitlisten= take HOST:PORT, each of them a literal or *")
    # As in OpenSSH, a port alone means that port on any listen address.
    place = (host.removeprefix("[").removesuffix("]") if colon else "*", None if port == "*" else int(port))
    before = getattr(line.restrictions, field) or ()
    return _restrict(line, **{field: (*before, place)})


def _from(line: KeyLine, value: str) -> KeyLine:
    sources = []
    for element in filter(None, value.split(",")):
        source = _source(element)
        if source is None:
            # An exclusion that matches no address excludes nobody. Refuse the line: the operator relies on it.
            if element.startswith("!"):
                raise LineRefused(f"from= holds {element[:60]!r}, which is no address; host names are not looked up")
            line = _note(line, f"from= holds {element[:60]!r}, which matches nobody; host names are not looked up")
        else:
            sources.append(source)
    if not value:
        raise LineRefused("from= is empty")
    return replace(line, sources=tuple(sources))


_VALUED: dict[str, Callable[[KeyLine, str], KeyLine]] = {
    "command": _command,
    "environment": _environment,
    "principals": _principals,
    "expiry-time": _expiry,
    "from": _from,
    "permitopen": lambda line, value: _permit(line, "permit_open", value, host_needed=True),
    "permitlisten": lambda line, value: _permit(line, "permit_listen", value, host_needed=False),
    "tunnel": lambda line, value: _note(line, "tunnel= is not offered here"),
}
_REPEATABLE = frozenset({"environment", "expiry-time", "permitopen", "permitlisten"})


# --- from= ---


def _source(element: str) -> SourcePattern | None:
    """Parse one element of ``from=``; ``None`` if it cannot match any address.

    IPv4-mapped IPv6 patterns become IPv4, because sources are normalised in the same way.
    """
    negated = element.startswith("!")
    pattern = element.removeprefix("!").strip().lower()
    if "/" in pattern:
        try:
            return SourcePattern(negated, _unmapped(ip_network(pattern)), "")
        except ValueError as error:
            raise LineRefused(f"from= holds {pattern[:60]!r}: {error}") from error
    if pattern.startswith("::ffff:") and "." in pattern:
        pattern = pattern.removeprefix("::ffff:")
    try:
        return SourcePattern(negated, _unmapped(ip_network(pattern)), "")
    except ValueError:
        like_an_address = re.fullmatch(r"[0-9.*?]+|(?!::ffff:)[0-9a-f:*?]+", pattern) and re.search(r"[*?]", pattern)
        return SourcePattern(negated, None, pattern) if like_an_address else None


def _unmapped(network: Network) -> Network:
    """Convert an IPv4-mapped IPv6 network to IPv4."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return network if mapped is None or network.prefixlen < 96 else IPv4Network((mapped, network.prefixlen - 96))


def _from_matches(patterns: tuple[SourcePattern, ...], source: str) -> bool:
    address = ip_of(source)
    if address is None:
        return False
    matching = [pattern for pattern in patterns if pattern.matches(address)]
    return bool(matching) and not any(pattern.negated for pattern in matching)
