"""Subsystems with which users list, end and reach their own sandboxes: `ssh -s USER[=NAME]@HOST SUBSYSTEM`.

Every call passes the user who has logged in, and no argument names another user.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

from sshgate.access.identity import LoginName
from sshgate.access.issued import Token
from sshgate.access.policy import sandbox_name
from sshgate.errors import BadRequest, NoSuchSandbox
from sshgate.lifecycle.clocks import span
from sshgate.sandbox.interfaces import Homes, Listed, ListedHome, NamedSandboxes, Provider
from sshgate.session.subsystems.registry import LISTS, SubsystemHandlers, SubsystemRequest
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import EventContext, escape
from sshgate.telemetry.timings import since

MEBI = 1 << 20

ALIAS = "sandbox"
# The sandbox's name if the login name has none. Editors need a named one: they return to their server in it.
USUAL_NAME = "work"
REMARK = f"""\
# ssh {ALIAS}: the same sandbox every time, for shells, files and remote editors. Goes into ~/.ssh/config.
# The address is the one at which the gateway was reached: behind a balancer, write the name you use.
"""


class SandboxSubsystems:
    """The handlers of `sandboxes`, `end`, `homes` and `delete-home`."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def add_to(self, subsystems: SubsystemHandlers) -> None:
        """Register all four handlers."""
        subsystems.add(
            "sandboxes", self.sandboxes, "your sandboxes: profile, state, age, time left, CPU and memory", LISTS
        )
        subsystems.add("end", self.end, "end the sandbox of USER=NAME and all that runs in it")
        subsystems.add("homes", self.homes, "the kept home directories of your named sandboxes", LISTS)
        subsystems.add("delete-home", self.delete_home, "delete the kept home directory of USER=NAME, for good")

    async def sandboxes(self, request: SubsystemRequest) -> str:
        """List the user's sandboxes, as a table or as JSON."""
        listed = await self._provider.named.list(request.identity.user)
        if request.as_json:
            return json.dumps([asdict(one) for one in listed]) + "\n"
        return sandbox_table(listed) if listed else "you have no sandboxes.\n"

    async def end(self, request: SubsystemRequest) -> str:
        """End the named sandbox of the login name. Raises ``BadRequest`` without a name, and ``NoSuchSandbox``."""
        name = _named(request, "end")
        await end_named(self._provider.named, request.identity.user, name, request.events)
        return f"sandbox {name!r} has ended.\n"

    async def homes(self, request: SubsystemRequest) -> str:
        """List the user's homes, as a table or as JSON. Raises ``BadRequest`` if the provider has no homes."""
        listed = await self._homes().list(request.identity.user)
        if request.as_json:
            return json.dumps([asdict(one) for one in listed]) + "\n"
        return home_table(listed) if listed else "you have no homes.\n"

    async def delete_home(self, request: SubsystemRequest) -> str:
        """Delete the home of the login name's sandbox.

        Raises ``BadRequest`` without a name, without homes, or while the home is in use, and ``NoSuchSandbox``.
        """
        name = _named(request, "delete-home")
        if not await self._homes().delete(request.identity.user, name):
            raise NoSuchSandbox(f"you have no home {name!r}; `ssh -s USER@HOST homes` lists yours.")
        request.events.emit(Code.HOME_DELETED, name=name)
        return f"home {name!r} is deleted.\n"

    def _homes(self) -> Homes:
        if self._provider.homes is None:
            raise BadRequest("there are no homes here: sandboxes on one machine keep nothing.")
        return self._provider.homes


async def end_named(named: NamedSandboxes, user: str, name: str, events: EventContext) -> None:
    """End a named sandbox for its user. Raises ``NoSuchSandbox`` and ``Unavailable``."""
    profile = named.profile(user, name)
    began = time.monotonic()
    ended = await named.end(user, name)
    if ended is None:
        raise NoSuchSandbox(f"you have no sandbox {name!r}; `ssh -s USER@HOST sandboxes` lists yours.")
    events = events.with_fields(sandbox=ended, profile=profile, name=name)
    events.emit(Code.SANDBOX_END, by="user", reason="ended by its user", seconds=since(began))


def _named(request: SubsystemRequest, command: str) -> str:
    name = sandbox_name(request.identity, request.request)
    if name is None:
        raise BadRequest(f"say which: `ssh -s USER=NAME@HOST {command}`.")
    return name


# --- lines for ~/.ssh/config, with which editors and people reach the same sandbox every time ---


def ssh_config_block(login: LoginName, host: str, port: int, *more: str) -> str:
    """Return a ``Host`` block; ``more`` are additional lines, such as one for the key's file."""
    named = replace(login, name=login.name or USUAL_NAME)
    lines = (f"HostName {host}", f"Port {port}", f"User {named}", *more, "ServerAliveInterval 30")
    return f"Host {ALIAS}\n" + "".join(f"  {line}\n" for line in lines)


def add_ssh_config_to(subsystems: SubsystemHandlers, node: str | None, port: int | None = None) -> None:
    """Register the subsystem `config`, which prints the block for the user who has logged in.

    Args:
        node: The address for the block when the gateway runs in a pod; ``None``: the address the client connected to.
        port: The port for the block; ``None``: the one the client connected to.
    """

    async def config(request: SubsystemRequest) -> str:
        who = request.identity
        return REMARK + ssh_config_block(who.login, node or who.server or "HOST", port or who.server_port or 22)

    subsystems.add("config", config, "lines for ~/.ssh/config, for editors that need the same sandbox again")


# --- tables ---


def sandbox_table(listed: Sequence[Listed], users: bool = False) -> str:
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
    return table(heading, rows, [one.user for one in listed] if users else None)


def home_table(listed: Sequence[ListedHome]) -> str:
    """Return a table of homes."""
    rows = [(one.name, one.size, span(one.age), "in use" if one.in_use else "kept") for one in listed]
    return table(("NAME", "SIZE", "AGE", "STATE"), rows)


def token_table(listed: Sequence[Token], now: float) -> str:
    """Return a table of tokens; ``now`` is in seconds since the epoch."""
    rows = [(one.id, span(max(0.0, now - one.made)), span(one.ends - now), one.source, one.key) for one in listed]
    return table(("ID", "AGE", "LEFT", "FROM", "KEY"), rows)


def table(heading: tuple[str, ...], rows: Sequence[tuple[str, ...]], users: Sequence[str] | None = None) -> str:
    """Return columns of equal width; ``users`` adds one before them.

    Programs in a sandbox choose some of the texts (models, names). What is not printable is escaped: the reader's
    terminal is not theirs.
    """
    lines: list[tuple[str, ...]] = [heading, *(tuple(map(escape, row)) for row in rows)]
    if users is not None:
        lines = [("USER", *heading), *((user, *row) for user, row in zip(users, lines[1:], strict=True))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "".join(line.rstrip() + "\n" for line in padded)
