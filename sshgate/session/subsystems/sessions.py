"""Subsystems for held sessions: `ssh -s USER[=NAME]@HOST sessions`, `ssh -s USER=NAME=SESSION@HOST end-session`."""

from __future__ import annotations

import json
from dataclasses import asdict

from sshgate.access.policy import sandbox_name
from sshgate.errors import BadRequest, NoSuchSandbox
from sshgate.hold.listing import HeldSession
from sshgate.lifecycle.clocks import span
from sshgate.session.subsystems.held_sessions import HeldSessions
from sshgate.session.subsystems.registry import LISTS, SubsystemHandlers, SubsystemRequest
from sshgate.session.subsystems.sandboxes import table
from sshgate.telemetry.codes import Code


class SessionSubsystems:
    """The handlers of `sessions` and `end-session`."""

    def __init__(self, held: HeldSessions) -> None:
        self._held = held

    def add_to(self, subsystems: SubsystemHandlers) -> None:
        """Register both handlers."""
        about = "the held sessions of all your sandboxes, or of USER=NAME"
        subsystems.add("sessions", self.sessions, about, takes=LISTS)
        subsystems.add("end-session", self.end_session, "end the held session of USER=NAME=SESSION")

    async def sessions(self, request: SubsystemRequest) -> str:
        """List sessions, as a table or as JSON."""
        only = sandbox_name(request.identity, request.request)
        found = await self._held.of(request.identity.user, only)
        if request.as_json:
            values = [{**asdict(one), "error": one.error or None} for one in found]
            return json.dumps(values) + "\n"
        rows = [_row(one.sandbox, each) for one in found for each in one.sessions]
        errors = "".join(f"{one.sandbox}: {one.error}\n" for one in found if one.error)
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
        if not await self._held.end(user, name, session):
            raise NoSuchSandbox(
                f"you have no session {session!r} there; `ssh -s USER={name}@HOST sessions` lists them."
            )
        request.events.emit(Code.HELD_END, name=session, by="user")
        return f"session {session!r} has ended.\n"


def _row(sandbox: str, one: HeldSession) -> tuple[str, ...]:
    size = f"{one.columns}x{one.rows}"
    since = span(one.left) if one.left else "-"
    state = f"{one.state}; watched from {', '.join(one.watchers)}" if one.watchers else one.state
    return (sandbox, one.name, one.program, one.title or "-", state, since, span(one.age), size, span(one.quiet))
