"""What a client wants of the resident of a sandbox, and where it was in its session."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

SCREEN = 3
"""The stream of a screen, for a client with a place."""
SCREEN_HEAD = struct.Struct(">QH")
"""A screen begins with the offset of the output that follows, and the length of the modes that are next."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Which session a login wants.

    ``how``: ``auto`` joins the detached shell that was used last, else the detached command, else begins a session;
    ``named`` joins or begins the session ``name``; ``new`` begins one; ``resume`` goes on at ``offset`` of the session
    with this ``id``; ``watch`` only looks at it.
    """

    how: Literal["auto", "named", "new", "resume", "watch"]
    name: str = ""
    source: str = ""
    """The client's address, for ``sessions``."""
    detached: float = 600.0
    """Seconds for which an idle shell is kept without a client."""
    most: int = 20
    """Sessions in this sandbox at most."""
    reattach: float = 60.0
    """Seconds for which a broken connection to the sandbox is opened again."""
    agents: bool = False
    """Whether agents are forwarded: SSHGATE_AGENT leads to that of the client that came last."""
    placed: bool = False
    """Whether the client keeps its place: see ``Place``."""
    id: str = ""
    """The session to go on in, for ``resume``, or to look at, for ``watch``."""
    offset: int = 0
    """Where in its output."""
    of_user: int = 0
    """Sessions of the user in all sandboxes at most, where that leaves this one fewer; 0: it does not."""
    types: bool = False
    """Whether what somebody who watches types reaches the program."""


@dataclass(slots=True)
class Place:
    """The place of a client in a held session, which outlives gateways: a browser's page has it.

    Such a client has it as its attribute ``place``. It gets the program's output alone as STDOUT, so that bytes can be
    counted; a screen as SCREEN, for an empty terminal; and sentences as STDERR.
    """

    id: str = ""
    """The session that it is or was in; empty: none."""
    offset: int | None = None
    """Its terminal has shown the output below it; ``None``: its terminal is empty."""
    ends: bool = False
    """Whether the session is to end when the client leaves."""
    name: str = ""
    """The session's name, once it is joined."""
    replayed: int = 0
    """The output below it is from before it was joined: nothing of it waits for an answer."""
    unwanted: bool = False
    """Whether the session is to end when the client leaves, if it was begun by joining."""
    forsaken: bool = False
    """Whether its login is over: the session is to end when the client leaves, if nobody else is in it."""
    ended: bool = False
    """Whether the session has ended because it was to end."""
