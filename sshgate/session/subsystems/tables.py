"""Sandboxes, homes and tokens as text tables. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from sshgate.access.issued import Token
from sshgate.lifecycle.clocks import span
from sshgate.sandbox.named import Listed, ListedHome

MEBI = 1 << 20


def sandboxes(listed: Sequence[Listed], users: bool = False) -> str:
    """Return a table of sandboxes; ``users`` adds a column for the user. ``-`` means unknown or none."""
    heading = ("NAME", "PROFILE", "STATE", "AGE", "LEFT", "CPU", "MEMORY", "HOME", "POD")
    rows = [
        (
            one.name or "-",
            one.profile,
            one.state,
            span(one.age),
            "-" if one.left is None else span(one.left),
            "-" if one.cpu is None else f"{one.cpu:.2f}",
            "-" if one.memory is None else f"{one.memory / MEBI:.0f}Mi",
            "yes" if one.home else "-",
            one.id,
        )
        for one in listed
    ]
    return _table(heading, rows, [one.user for one in listed] if users else None)


def homes(listed: Sequence[ListedHome], users: bool = False) -> str:
    """Return a table of homes; ``users`` adds a column for the user."""
    rows = [(one.name, one.size, span(one.age), "in use" if one.in_use else "kept") for one in listed]
    return _table(("NAME", "SIZE", "AGE", "STATE"), rows, [one.user for one in listed] if users else None)


def tokens(listed: Sequence[Token], now: float) -> str:
    """Return a table of tokens; ``now`` is in seconds since the epoch."""
    rows = [(one.id, span(max(0.0, now - one.made)), span(one.ends - now), one.source, one.key) for one in listed]
    return _table(("ID", "AGE", "LEFT", "FROM", "KEY"), rows, None)


def _table(heading: tuple[str, ...], rows: Sequence[tuple[str, ...]], users: Sequence[str] | None) -> str:
    lines: list[tuple[str, ...]] = [heading, *rows]
    if users is not None:
        lines = [("USER", *heading), *((user, *row) for user, row in zip(users, rows, strict=True))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "".join(line.rstrip() + "\n" for line in padded)
