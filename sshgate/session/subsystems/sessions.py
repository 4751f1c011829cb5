"""Subsystems for held sessions: `ssh -s USER[=NAME]@HOST sessions`, `ssh -s USER=NAME=SESSION@HOST end-session`."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import TypeVar

from sshgate.access.policy import sandbox_name
from sshgate.config.model import Profile
from sshgate.errors import BadRequest, GateError, NoSuchSandbox
from sshgate.hold import listing
from sshgate.hold.listing import HeldSession
from sshgate.lifecycle.clocks import span
from sshgate.sandbox.interfaces import Order, Provider, Sandbox
from sshgate.session.subsystems.registry import SubsystemHandlers, SubsystemRequest
from sshgate.session.subsystems.sandboxes import table
from sshgate.telemetry.codes import Code

# Sandboxes of one request that are asked at a time.
AT_ONCE = 4

T = TypeVar("T")

Profiles = Callable[[], Mapping[str, Profile]]


class SessionSubsystems:
    """The handlers of `sessions` and `end-session`. ``profiles`` returns the profiles of now."""

    def __init__(self, provider: Provider, profiles: Profiles) -> None:
        self._provider = provider
        self._profiles = profiles

    def add_to(self, subsystems: SubsystemHandlers) -> None:
        """Register both handlers."""
        about = "the held sessions of all your sandboxes, or of USER=NAME"
        subsystems.add("sessions", self.sessions, about, takes="[--json]")
        subsystems.add("end-session", self.end_session, "the end of the held session of USER=NAME=SESSION")

    async def sessions(self, request: SubsystemRequest) -> str:
        """List sessions, as a table or as JSON. Raises ``BadRequest`` for another argument."""
        if request.word not in ("", "--json"):
            raise BadRequest("say just `ssh -s USER@HOST sessions [--json]`.")
        user = request.identity.user
        only = sandbox_name(request.identity, request.request)
        listed = await self._provider.named.list(user)
        names = [one.name for one in listed if one.name is not None and only in (None, one.name)]
        if only is not None and not names:
            raise NoSuchSandbox(f"you have no sandbox {only!r}; `ssh -s USER@HOST sandboxes` lists yours.")
        places = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> tuple[str, list[HeldSession], str]:
            async with places:
                try:
                    return name, await self._with(user, name, listing.sessions), ""
                except (GateError, TimeoutError) as error:
                    return name, [], str(error) or "the sandbox does not answer."

        found = await asyncio.gather(*(one(name) for name in names))
        if request.word:
            values = [
                {"sandbox": name, "sessions": [asdict(each) for each in held], "error": error or None}
                for name, held, error in found
            ]
            return json.dumps(values) + "\n"
        rows = [_row(name, each) for name, held, _ in found for each in held]
        errors = "".join(f"{name}: {error}\n" for name, _, error in found if error)
        heading = ("SANDBOX", "SESSION", "PROGRAM", "TITLE", "STATE", "SINCE", "AGE", "SIZE", "QUIET")
        return (table(heading, rows) if rows else "you have no held sessions.\n") + errors

    async def end_session(self, request: SubsystemRequest) -> str:
        """End a held session.

        Raises ``BadRequest`` without its name, and ``NoSuchSandbox`` if there is none of it.
        """
        user, session = request.identity.user, request.identity.login.session
        name = sandbox_name(request.identity, request.request)
        if name is None or session is None:
            raise BadRequest("say which: `ssh -s USER=NAME=SESSION@HOST end-session`.")

        async def end(sandbox: Sandbox) -> bool:
            return await listing.end(sandbox, session)

        if not await self._with(user, name, end):
            raise NoSuchSandbox(
                f"you have no session {session!r} there; `ssh -s USER={name}@HOST sessions` lists them."
            )
        request.events.emit(Code.HELD_END, name=session, by="user")
        return f"session {session!r} has ended.\n"

    async def _with(self, user: str, name: str, ask: Callable[[Sandbox], Awaitable[T]]) -> T:
        """Ask the sandbox of this name, which is not made if there is none."""
        profile = self._profiles().get(self._provider.named.profile(user, name) or "")
        if profile is None:
            raise NoSuchSandbox(f"you have no sandbox {name!r}; `ssh -s USER@HOST sandboxes` lists yours.")

        sandbox = await self._provider.named.find(Order(profile, user, secrets.token_hex(5), name))
        if sandbox is None:
            raise NoSuchSandbox("it has just ended.")
        return await ask(sandbox)


def _row(sandbox: str, one: HeldSession) -> tuple[str, ...]:
    size = f"{one.columns}x{one.rows}"
    since = span(one.left) if one.left else "-"
    return (sandbox, one.name, one.program, one.title or "-", one.state, since, span(one.age), size, span(one.quiet))
