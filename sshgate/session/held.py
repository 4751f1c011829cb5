"""Held sessions: which programs are held, how a client joins one, and what it is shown when it leaves."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from sshgate.access.identity import Identity
from sshgate.access.policy import Grant
from sshgate.errors import BadRequest
from sshgate.forwarding.destinations import offers_agent
from sshgate.hold import listing
from sshgate.hold.line import CannotHold, NoResident
from sshgate.hold.process import HeldProcess
from sshgate.hold.signs import nothing_known
from sshgate.hold.wishes import Place, Wish
from sshgate.sandbox.enter import launch, park
from sshgate.sandbox.interfaces import Sandbox
from sshgate.sandbox.launcher import Program
from sshgate.session import notices
from sshgate.session.timers import Expired
from sshgate.stream.interfaces import STDOUT, Client, Exited, Outcome, Process, Shell, Signalled, Subsystem
from sshgate.stream.tasks import within
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import EventContext

# Seconds for a client's sign of life, so that its session's end counts as known to it.
ANSWER_SECONDS = 2.0
# Seconds in which a client that has moved to another gateway gets the end of its session there.
READ_SECONDS = 3.0
NEW = "new"
"""The name of a session, in a login name, that always begins one."""


def place_of(client: Client) -> Place | None:
    """Return the place of a client that has one."""
    return getattr(client, "place", None)


def wish(identity: Identity, granted: Grant, place: Place | None = None) -> Wish | None:
    """Return which held session is wanted; ``None``: the program is not held.

    Held are programs on terminals. Those of a forced command are not: its key must not reach another program. Nor are
    those of a script that names no session: its input is for a program of its own, not for the one that was left.
    A client with a ``place`` names the session that it wants; without a name it begins one.

    Raises:
        BadRequest: the login name has a session, and the profile holds none.
    """
    profile, request, session = granted.profile, granted.request, identity.login.session
    holds = profile.hold == "always" or (profile.hold == "named" and granted.scope == "named")
    if request.terminal is None or isinstance(request.kind, Subsystem) or identity.restrictions.command is not None:
        return None
    if session is None and request.terminal.scripted:
        return None
    if not holds:
        if session is not None:
            raise BadRequest(
                f"sessions are not held here (profile {profile.name!r}): log in without '={session}' at the end."
            )
        return None
    limits = profile.limits
    settings = Wish(
        "new", "", identity.source, limits.detached, limits.sessions, limits.reattach, agents=offers_agent(
            profile.forward, identity.restrictions), placed=place is not None,
    )  # fmt: skip
    if place is not None and place.id and place.offset is not None:
        return replace(settings, how="resume", id=place.id, offset=place.offset)
    if session is not None and session != NEW:
        return replace(settings, how="named", name=session)
    # A command is something new to run; only a shell is as good as the one that was left.
    joins = session is None and isinstance(request.kind, Shell) and place is None
    return replace(settings, how="auto") if joins else settings


async def enter(sandbox: Sandbox, granted: Grant, wanted: Wish | None, client: Client) -> Process:
    """Get what becomes the program: a parked launcher, or an attachment to the sandbox's resident.

    Where there is no resident for it, the program is not held; who asked for a session by name, or may have some there,
    gets to know. Raises as ``park``; also ``NoResident``, if a session was to be resumed.
    """
    if wanted is not None:

        async def alive() -> bool:
            look = getattr(client, "alive", None)
            return look is None or bool(await look())

        try:
            return await HeldProcess.attach(sandbox, wanted, alive, getattr(client, "progress", nothing_known))
        except NoResident as error:
            if wanted.how == "resume":
                raise  # another program would write on the old screen
            if wanted.how == "named" or not isinstance(error, CannotHold):
                await notices.say(client, granted.request, f"this program is not held: {error}")
    return await park(sandbox, granted.request.terminal)


async def begin(process: Process, program: Program, no_input: bool, client: Client, events: EventContext) -> bytes:
    """Turn it into the program, or join the session. Returns output that was read meanwhile. Raises as ``launch``."""
    if not isinstance(process, HeldProcess):
        return await launch(process, program, no_input=no_input)
    if (notice := getattr(client, "changed_there", None)) is not None:
        process.changed = notice
    await process.launch(program)
    if (place := place_of(client)) is not None:
        place.id, place.name, place.replayed = process.session, process.name, process.replayed
    sentences = []
    for past in process.past:
        events.emit(Code.HELD_END, name=past.name, ending=past.ending)
        sentences.append(f"session {past.name} ({past.program}) ended while you were away: {past.ending}.")
    # A page shows one sentence at a time.
    for sentence in sentences if place is None else [" ".join(sentences)] * bool(sentences):
        await notices.say(client, program.request, sentence)
    if process.past:
        await process.report(*(past.id for past in process.past))
    return b""


async def leave(process: Process, client: Client, outcome: Outcome | None, events: EventContext) -> None:
    """Close a process. If it is held, report its end, and bring the client's terminal back to how it was.

    A held session is ended only if its client asks for that; otherwise it is there for the next login.
    """
    place = place_of(client)
    try:
        if not isinstance(process, HeldProcess):
            return
        if place is not None and (place.ends or (place.unwanted and process.made)):
            place.ended = await process.end()
            if place.ended:
                events.emit(Code.HELD_END, name=process.name, by="user")
        elif isinstance(outcome, Exited | Signalled) and not await _gone(client) and await _answers(client):
            await process.report()
    finally:
        await process.close()
        if isinstance(process, HeldProcess) and place is None and (undone := process.put_back()):
            await notices.write(client, undone, STDOUT)


async def is_over(sandbox: Sandbox, process: Process, client: Client, outcome: Outcome | None) -> bool:
    """Return whether a sandbox that the gateway named is over when this client leaves.

    It is if the page ends it, and once the session has ended or nobody came back in time; not if others are there.
    """
    place = place_of(client)
    if not isinstance(process, HeldProcess):
        return place is not None and not await listing.others(sandbox)
    if place is not None and (place.ends or (place.unwanted and process.made)):
        return not await listing.others(sandbox, process.name)
    if isinstance(outcome, Exited | Signalled) or not process.session:
        if outcome is not None and await _gone(client):
            await asyncio.sleep(READ_SECONDS)
        return not await listing.running(sandbox)
    if place is None or not (place.forsaken or isinstance(outcome, Expired)):
        return False
    if not await listing.running(sandbox, process.name):
        return True
    if place.forsaken:
        await listing.end_detached(sandbox, process.name)
    return False


async def _answers(client: Client) -> bool:
    """Whether a client has what it was sent, as far as can be known: it may sleep, and its connection seem whole."""
    if (look := getattr(client, "alive", None)) is None:
        return True
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return bool(await look())
    except TimeoutError:
        return False


async def _gone(client: Client) -> bool:
    if not getattr(client, "attached", True):
        return True
    return await within(0, client.wait_closed())
