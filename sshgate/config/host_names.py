"""The names that a sandbox may connect to: patterns of settings, and what they match. Pure.

A pattern is ``name``, ``*.name`` (every name below it, at any depth), either with ``:port``, or a preset such as
``@pypi``. Without a port it means 443. No pattern matches an address: the operator of the name server would choose it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import yaml

HTTPS = 443
HTTP = 80
# Characters of a name and of one of its labels (RFC 1035).
LONGEST_NAME = 253
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
# A name whose last label is a number is an address to many programs: 127.1, 2130706433, 0x7f000001, 0177.0.0.1.
_NUMBER = re.compile(r"(?:\d+|0x[0-9a-f]*)\Z")
_PORT = re.compile(r"[1-9]\d{0,4}\Z")


def canonical(name: str) -> str | None:
    """Return a host name as it is compared: lower case, without the root's dot. ``None`` if it is no name.

    Addresses in any spelling are no names. Names in other scripts stand in their ASCII form (``xn--...``).
    """
    plain = name.lower().removesuffix(".")
    if not name.isascii() or len(plain) > LONGEST_NAME:
        return None
    labels = plain.split(".")
    if not all(_LABEL.match(label) for label in labels) or _NUMBER.match(labels[-1]):
        return None
    return plain


@dataclass(frozen=True, slots=True)
class Rule:
    """One name, or all names below it, at one port."""

    name: str
    below: bool
    port: int

    def __str__(self) -> str:
        text = f"*.{self.name}" if self.below else self.name
        return text if self.port == HTTPS else f"{text}:{self.port}"

    @classmethod
    def of(cls, pattern: str) -> Rule:
        """Parse a pattern that is not a preset.

        Raises:
            ValueError: It is none; holds a clause for the author of the settings.
        """
        text, colon, port = pattern.partition(":")
        below = text.startswith("*.")
        name = canonical(text.removeprefix("*."))
        if colon and (not _PORT.match(port) or int(port) > 65_535):
            raise ValueError(f"{pattern!r}: after the colon stands a port of 1-65535")
        if name is None:
            raise ValueError(
                f"{pattern!r} is no name: write example.org, *.example.org or example.org:8443; no addresses, and "
                "names in other scripts as xn--..."
            )
        if below and "." not in name:
            raise ValueError(f"{pattern!r} would match half of the internet: write at least *.example.org")
        return cls(name, below, int(port) if colon else HTTPS)

    def matches(self, name: str, port: int) -> bool:
        """Whether it allows the canonical ``name`` at ``port``."""
        return port == self.port and (name.endswith(f".{self.name}") if self.below else name == self.name)


@dataclass(frozen=True, slots=True)
class Rules:
    """All names that one profile allows."""

    rules: tuple[Rule, ...]

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, patterns: tuple[str, ...]) -> Rules:
        """Parse patterns and presets. Raises ``ValueError`` as ``Rule.of`` does, and for unknown presets."""
        return cls(tuple(Rule.of(one) for pattern in patterns for one in expanded(pattern)))

    def allow(self, name: str, port: int) -> bool:
        """Whether the canonical ``name`` may be connected to at ``port``."""
        return any(rule.matches(name, port) for rule in self.rules)


def expanded(pattern: str) -> Iterable[str]:
    """Return the patterns that a preset stands for, or the pattern itself. Raises ``ValueError`` for unknown ones."""
    if not pattern.startswith("@"):
        return (pattern,)
    known = presets()
    if pattern not in known:
        raise ValueError(f"there is no preset {pattern!r}: {', '.join(sorted(known))}")
    return known[pattern]


def pattern(text: str) -> str:
    """Check one entry of ``egress.allow``; returned unchanged. Raises ``ValueError``."""
    for one in expanded(text):
        Rule.of(one)
    return text


@lru_cache(maxsize=1)
def presets() -> Mapping[str, tuple[str, ...]]:
    """Return the presets by their names."""
    read = yaml.safe_load(files("sshgate.config").joinpath("egress_presets.yaml").read_text())
    return {name: tuple(".".join(labels) for labels in names) for name, names in read.items()}


def wish(name: str, port: int) -> str:
    """Return the entry of ``egress.allow`` that would allow this name and no other."""
    return str(Rule(name, False, port))
