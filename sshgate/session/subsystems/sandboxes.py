"""Subsystems with which users list and end their own sandboxes: `ssh -s USER[=NAME]@HOST SUBSYSTEM`.

Every call passes the user who has logged in, and no argument names another user.
"""

from __future__ import annotations

import time

from sshgate.access.policy import sandbox_name
from sshgate.errors import BadRequest, NoSuchSandbox
from sshgate.sandbox.named import Homes
from sshgate.sandbox.provider import Provider
from sshgate.session.subsystems import tables
from sshgate.session.subsystems.registry import SubsystemHandlers, SubsystemRequest
from sshgate.telemetry.codes import Code
from sshgate.telemetry.timings import since


class SandboxSubsystems:
    """The handlers of `sandboxes`, `end`, `homes` and `delete-home`."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def add_to(self, verbs: SubsystemHandlers) -> None:
        """Register all four handlers."""
        verbs.add("sandboxes", self.sandboxes, "your sandboxes: profile, state, age, time left")
        verbs.add("end", self.end, "the end of the sandbox of USER=NAME, and of all that runs in it")
        verbs.add("homes", self.homes, "what is kept of your named sandboxes")
        verbs.add("delete-home", self.delete_home, "the end of what is kept of USER=NAME")

    async def sandboxes(self, question: SubsystemRequest) -> str:
        """Return a table of the user's sandboxes."""
        listed = await self._provider.named.list(question.identity.user)
        return tables.sandboxes(listed) if listed else "you have no sandboxes.\n"

    async def end(self, question: SubsystemRequest) -> str:
        """End the named sandbox of the login name. Raises ``BadRequest`` without a name, and ``NoSuchSandbox``."""
        name = _named(question, "end")
        named, user = self._provider.named, question.identity.user
        profile = named.profile(user, name)
        began = time.monotonic()
        ended = await named.end(user, name)
        if ended is None:
            raise NoSuchSandbox(f"you have no sandbox {name!r}; `ssh -s USER@HOST sandboxes` lists yours.")
        trail = question.trail.with_fields(sandbox=ended, profile=profile, name=name)
        trail.emit(Code.SANDBOX_END, by="user", reason="ended by its user", seconds=since(began))
        return f"sandbox {name!r} has ended.\n"

    async def homes(self, question: SubsystemRequest) -> str:
        """Return a table of the user's homes. Raises ``BadRequest`` if the provider has no homes."""
        listed = await self._homes().list(question.identity.user)
        return tables.homes(listed) if listed else "you have no homes.\n"

    async def delete_home(self, question: SubsystemRequest) -> str:
        """Delete the home of the login name's sandbox.

        Raises ``BadRequest`` without a name, without homes, or while the home is in use, and ``NoSuchSandbox``.
        """
        name = _named(question, "delete-home")
        if not await self._homes().delete(question.identity.user, name):
            raise NoSuchSandbox(f"you have no home {name!r}; `ssh -s USER@HOST homes` lists yours.")
        question.trail.emit(Code.HOME_DELETED, name=name)
        return f"home {name!r} is deleted.\n"

    def _homes(self) -> Homes:
        if self._provider.homes is None:
            raise BadRequest("there are no homes here: sandboxes on one machine keep nothing.")
        return self._provider.homes


def _named(question: SubsystemRequest, verb: str) -> str:
    name = sandbox_name(question.identity, question.request)
    if name is None:
        raise BadRequest(f"say which: `ssh -s USER=NAME@HOST {verb}`.")
    return name
