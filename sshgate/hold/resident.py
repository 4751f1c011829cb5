"""The resident: it keeps the terminals of one sandbox. Sent as source, run by python3 there.

So: standard library only, Python 3.7, nothing of ours but the two pure modules that are sent with it. It has a session
of its own, so it outlives every exec, connection and gateway. A gateway attaches by an exec whose program hands its two
pipes over (SCM_RIGHTS) and waits; then frames pass: a kind, a length and a payload. One attachment serves one client.

Output has byte offsets from 0, and so has the input of each client: one that comes back after its exec was lost goes on
where it was, in both directions. A session whose active client does not read stops the program, as any terminal does.
"""

from __future__ import annotations

import binascii
import json
import os
import select
import signal
import socket
import struct
import time

from sshgate.hold.frames import HEAD, MYPY, OFFSET, SIZE, Attachment, Kind, Listener, Watcher, received_pipes, refuse
from sshgate.hold.screen import first_shown
from sshgate.hold.terminal import KEPT, Session, end_idle, listed, wished

if MYPY:
    from typing import Any

CHUNK = 16 * 1024
# Bytes that the active client may be behind before the program has to wait.
BEHIND = 256 * 1024
# Bytes for one pipe that wait in memory before its attachment is not given more.
OUTBOX = 64 * 1024
LONGEST_FRAME = 2 << 20
# Taken input is reported after this, by itself.
ACK_SECONDS = 0.05
ACK_BYTES = 16 * 1024
ATTACHMENTS = 64
# Of them, those that watch: they must leave room for the user. Seconds between two redraws on their account; and, for
# each of them, between two screens of one that falls behind: a screen takes some 50 ms.
WATCHERS = 24
WATCHERS_PAUSE = 5.0
SCREEN_PAUSE = 0.5
# Ended sessions whose status is kept until it was reported.
ENDED_KEPT = 32
# Clients of one session that showed no sign of life and must not come back by themselves.
GIVEN_UP_KEPT = 64
# Seconds for which an ended session can be resumed.
RESUMED_SECONDS = 120.0
# Seconds for a sign of life when somebody logs in.
PROBE_SECONDS = 2.0
# Seconds: a resident without sessions and attachments ends, also before the first ones; how often shells are looked at.
UNUSED_SECONDS = 600.0
NEVER_USED_SECONDS = 3.0
LOOK_SECONDS = 5.0


class Resident(Watcher):
    """The event loop with its sessions and attachments. ``directory`` is the user's own."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self.directory = directory
        self.sessions: dict[str, Session] = {}
        self.ended: list[Session] = []
        self.attachments: list[Attachment] = []
        self.entrance = Listener(directory)
        self.used = time.monotonic()
        self.keeps = NEVER_USED_SECONDS
        self.looked = time.monotonic()
        self.pause = 0.0

    def open(self, first: bool = False) -> None:
        """Listen, also again after the socket was deleted. Raises ``OSError``, also where another resident does."""
        if (old := self.entrance.listener.fileno()) in self.masks:
            self.unwatch(old)
        self.entrance.open_soon() if first else self.entrance.open()
        self.watch(self.entrance.listener.fileno(), select.EPOLLIN, self.entrance)
        for session in self.sessions.values():
            session.point_agent()

    def run(self) -> None:
        while self.sessions or self.attachments or self.ended or time.monotonic() - self.used < self.keeps:
            for fd, events in self.epoll.poll(self.until_due()):
                self.ready(fd, events)
            self.due()
            for one in list(self.attachments):
                self.flush(one)
            for session in list(self.sessions.values()):
                self.update(session)  # not before: a client that was sent all is not behind, and no event would come

    def ready(self, fd: int, events: int) -> None:
        owner = self.by_fd.get(fd, self)
        if owner is self:
            return  # closed by an earlier event of this turn
        if isinstance(owner, Session):
            if events & ~select.EPOLLOUT:
                self.read_terminal(owner)
            self.write_terminal(owner)
        elif isinstance(owner, Attachment):
            if fd == owner.incoming:
                self.read_frames(owner)
            elif (fd == owner.outgoing and not events & select.EPOLLOUT) or fd == owner.control.fileno():
                self.leave(owner)
        elif owner is self.entrance:
            self.accept()
        elif fd == self.wake:
            os.read(fd, 4096)
            self.reap()
        else:
            self.take_pipes(fd, owner)

    # --- time ---

    def until_due(self) -> float:
        now = time.monotonic()
        due = [self.looked + LOOK_SECONDS, self.entrance.pauses_until or now + LOOK_SECONDS]
        if not self.ended:
            due.append(self.used + self.keeps)
        due += [session.redraw_at for session in self.sessions.values() if session.redraw_at]
        due += [one.wait_until for one in self.attachments if one.waits]
        due += [one.owes_since + ACK_SECONDS for one in self.attachments if one.owes_since and len(one.output) < OUTBOX]
        due += [one.screen_at + self.pause for one in self.attachments if one.is_slow() and len(one.output) < OUTBOX]
        return max(0.0, min(due) - now)

    def due(self) -> None:
        now = time.monotonic()
        if self.sessions or self.attachments:
            self.used = now
        self.pause = SCREEN_PAUSE * sum(one.watches for one in self.attachments)
        for session in self.sessions.values():
            if session.redraw_at and session.redraw_at <= now:
                session.redraw_at = 0.0
                session.set_size()
        for one in list(self.attachments):
            if one.waits and one.wait_until <= now:
                given_up, one.waits = one.waits, []
                for silent in given_up:
                    if silent.session is not None:
                        silent.session.given_up.append(silent.client)
                        del silent.session.given_up[:-GIVEN_UP_KEPT]
                    self.leave(silent)
                self.decide(one)
            elif one.is_silent(now):
                self.leave(one)
        if 0 < self.entrance.pauses_until <= now:
            self.entrance.pauses_until = 0.0
            self.watch(self.entrance.listener.fileno(), select.EPOLLIN, self.entrance)
        if self.looked + LOOK_SECONDS <= now:
            self.looked = now
            if not self.entrance.is_there():
                try:
                    self.open()  # who cleans /tmp deletes it, and nobody could join the sessions again
                except OSError:
                    pass  # another resident is there, or the disk is full
            end_idle(self.sessions.values())
            for session in self.sessions.values():
                if session.owes_redraw:
                    session.redraw(WATCHERS_PAUSE)
            # A gateway that has lost its exec may still come for the last output.
            over = time.time() - RESUMED_SECONDS
            self.ended = [each for each in self.ended if each.attached or not each.reported or each.ended_at > over]
            for each in self.ended:
                if each.ended_at <= over and not each.attached:
                    each.forget_output()

    # --- attaching ---

    def accept(self) -> None:
        control = self.entrance.accept()
        if control is not None:
            self.used = time.monotonic()
            self.watch(control.fileno(), select.EPOLLIN, control)
        elif self.entrance.pauses_until:
            self.watch(self.entrance.listener.fileno(), 0, self.entrance)

    def take_pipes(self, fd: int, control: object) -> None:
        assert isinstance(control, socket.socket)
        self.unwatch(fd)
        fds = received_pipes(control)
        if len(fds) != 2 or len(self.attachments) >= ATTACHMENTS:
            refuse(control, fds)
            return
        for one in fds:
            os.set_inheritable(one, False)
            os.set_blocking(one, False)
        attachment = Attachment(control, fds[0], fds[1])
        self.attachments.append(attachment)
        self.watch(control.fileno(), select.EPOLLIN, attachment)
        self.watch(attachment.incoming, select.EPOLLIN, attachment)
        self.flush(attachment)

    def leave(self, one: Attachment) -> None:
        """End an attachment; its session goes on."""
        if one not in self.attachments:
            return
        self.attachments.remove(one)
        if self.keeps != UNUSED_SECONDS and not self.attachments:
            self.keeps = 0.0  # it has waited in a warm sandbox that was claimed for something else
        for fd in (one.incoming, one.outgoing, one.control.fileno()):
            if fd in self.masks:
                self.unwatch(fd)
        one.close()
        session = one.session
        if session is not None:
            session.without(one)
        for waiting in list(self.attachments):
            if one in waiting.waits:
                waiting.waits.remove(one)
                if not waiting.waits or (session is not None and not session.attached):
                    self.decide(waiting)

    def flush(self, one: Attachment) -> None:
        session = one.session
        while one in self.attachments:
            if one.joined and session is not None and len(one.output) < OUTBOX:
                self.send_state(one, session)
                if one.owes_since:
                    self.acknowledge(one, session)
                self.fill(one, session)
            if not one.output:
                if one.last:
                    self.leave(one)
                    return
                break
            try:
                del one.output[: os.write(one.outgoing, one.output[:65536])]
            except BlockingIOError:
                break
            except OSError:
                self.leave(one)
                return
        if one in self.attachments:
            self.watch(one.outgoing, select.EPOLLOUT if one.output else 0, one)

    def send_state(self, one: Attachment, session: Session) -> None:
        if one.wish.get("states") and one.states != session.states:
            one.states = session.states
            one.send(Kind.STATE, session.state())

    def fill(self, one: Attachment, session: Session) -> None:
        """Queue output of the session, and its end after the last: that counts once the client has it."""
        if one.offset < session.start:
            if one.is_slow() and session.status is None and one.screen_at + self.pause > time.monotonic():
                return  # who has a link may read slowly, which must not cost others much
            self.show(one, session)
        while one.offset < session.end and len(one.output) < OUTBOX:
            at = one.offset - session.start
            data = bytes(session.ring[at : at + CHUNK])
            one.send(Kind.OUTPUT, OFFSET.pack(one.offset) + data)
            one.offset += len(data)
        if session.status is not None and one.offset == session.end and not one.finished:
            one.send(Kind.ENDED, json.dumps(session.status).encode())
            one.finished = True

    def show(self, one: Attachment, session: Session, narrower: bool = False) -> None:
        """Queue what a fresh terminal is shown first, and go on at the end of the output."""
        if one.watches:
            one.size = session.size
            one.screen_at = time.monotonic()
        shown, redraw = first_shown(
            session.modes, bytes(session.ring), session.start == 0, one.size[1], session.old_title, narrower
        )
        one.offset = session.end
        for at in range(0, len(shown), CHUNK):
            one.send(Kind.SCREEN, OFFSET.pack(one.offset) + shown[at : at + CHUNK])
        one.send(Kind.OUTPUT, OFFSET.pack(one.offset))  # the screen is complete
        if redraw and session.status is None:
            session.redraw(WATCHERS_PAUSE if one.watches else 0.0)

    # --- frames ---

    def read_frames(self, one: Attachment) -> None:
        try:
            data = os.read(one.incoming, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.leave(one)
            return
        one.last_frame = time.monotonic()
        one.input += data
        at = 0
        while len(one.input) - at >= HEAD.size and one in self.attachments:
            kind, length = HEAD.unpack_from(one.input, at)
            if length > LONGEST_FRAME:
                self.leave(one)
                return
            end = at + HEAD.size + length
            if len(one.input) < end:
                break
            payload = bytes(one.input[at + HEAD.size : end])
            at = end
            try:
                self.frame(one, kind, payload)
            except (ValueError, KeyError, TypeError, struct.error):
                self.leave(one)  # not one of our gateways
        del one.input[:at]

    def frame(self, one: Attachment, kind: int, payload: bytes) -> None:
        session = one.session
        if one.watches and kind not in (Kind.INPUT, Kind.PING):
            return  # who watches decides nothing
        if kind == Kind.JOIN:
            self.join(one, json.loads(payload.decode()))
        elif kind == Kind.LIST:
            one.send(Kind.LISTED, listed([*self.sessions.values(), *reversed(self.unreported())]))
            one.last = True
        elif kind == Kind.END:
            found = self.sessions.get(payload.decode())
            if found is None:
                one.fail("none")
            else:
                found.hang_up()
                one.send(Kind.LISTED, b"[]")
                one.last = True
        elif kind == Kind.PING:
            one.send(Kind.PONG)
        elif kind == Kind.ALIVE:
            for waiting in list(self.attachments):
                if one in waiting.waits:
                    waiting.waits.remove(one)
                    if not waiting.waits:
                        self.decide(waiting)
        elif kind == Kind.REPORTED:
            ids = payload.decode().split()
            for each in self.ended:
                each.reported |= each.id in ids
            one.send(Kind.PONG)
            one.last = session is not None and session.reported
        elif session is None or session.status is not None:
            return
        elif kind == Kind.INPUT:
            session.type(one, OFFSET.unpack_from(payload)[0], payload[OFFSET.size :])
            if one.client in session.taken and session.taken[one.client] != one.reported and not one.owes_since:
                one.owes_since = time.monotonic()
        elif kind == Kind.RESIZE:
            one.size = SIZE.unpack(payload)
            session.activate(one)
        elif kind == Kind.SIGNAL:
            name = payload.decode()
            session.hang_up() if name == "h" else session.signal(name[1:], foreground=name[:1] == "f")

    # --- joining ---

    def join(self, one: Attachment, wish: dict[str, Any]) -> None:
        one.wish = wish
        one.client = str(wish["client"])
        one.source = str(wish["from"])
        one.agent = str(wish.get("agent") or "")
        columns, rows, width, height = map(int, wish["size"])
        one.size = (columns, rows, width, height)
        if wish["how"] == "auto" and all(each.attached for each in self.sessions.values() if each.shell):
            # A session that seems attached may have lost its client without a sign.
            one.waits = [other for each in self.sessions.values() for other in each.attached]
            one.wait_until = time.monotonic() + PROBE_SECONDS
            for other in one.waits:
                other.send(Kind.PROBE)
        if not one.waits:
            self.decide(one)

    def decide(self, one: Attachment) -> None:
        """Carry out a wish to join, once nothing has to be waited for."""
        one.waits = []
        wish = one.wish
        one.watches = wish["how"] == "watch"
        if one.watches and sum(each.watches for each in self.attachments) > WATCHERS:
            one.fail("watched")
            return
        found, refusal = wished(one, self.sessions, self.ended)
        if refusal:
            one.fail(refusal)
            return
        made = found is None
        if found is None:
            if len(self.sessions) >= int(wish["most"]):
                one.fail("full")
                return
            try:
                found = self.begin(one, str(wish["name"]) if wish["how"] == "named" else "", wish)
            except OSError as error:
                one.fail("start " + (error.strerror or "failed"))
                return
        self.attach(one, found, made)

    def attach(self, one: Attachment, session: Session, made: bool) -> None:
        resumed = one.wish["how"] == "resume" or (one.watches and "offset" in one.wish)
        for other in session.attached + session.watchers:
            if other.client == one.client:
                self.leave(other)  # its exec was lost, and this one replaces it
        one.session = session
        received = session.take_in(one)
        # One login at a time reports them.
        past = [each for each in self.unreported() if each.reporter not in self.attachments][-8:] if made else []
        for each in past:
            each.reporter = one
        fresh = not made and not resumed
        one.offset = session.end if fresh else min(int(one.wish.get("offset", 0)), session.end)
        answer = {
            "name": session.name, "id": session.id, "pid": session.pid, "made": made,
            "received": received, "offset": one.offset, "end": session.end, "past": [each.describe() for each in past],
        }  # fmt: skip
        one.send(Kind.JOINED, json.dumps(answer).encode())
        self.send_state(one, session)  # before the first screen: it is laid out for this size
        narrower = one.size[0] < session.size[0]
        if not one.watches:
            if not resumed or session.active is None:
                session.activate(one)
            session.point_agent()
        if fresh:
            self.show(one, session, narrower and not one.watches)
        elif resumed and session.status is None and one.wish.get("redraw"):
            session.redraw(WATCHERS_PAUSE if one.watches else 0.0)
        one.joined = True

    def unreported(self) -> list[Session]:
        """The ended sessions of which no client knows."""
        return [each for each in self.ended if not each.reported and not each.attached]

    def begin(self, one: Attachment, name: str, wish: dict[str, Any]) -> Session:
        if not name:
            taken = {*self.sessions, *(each.name for each in self.ended)}
            name = next(str(number) for number in range(1, 10_000) if str(number) not in taken)
        session = Session(name, str(wish["program"])[:80], str(wish["shell"]), float(wish["detached"]))
        session.size = one.size
        session.agent = self.directory + "/agent-" + session.id if wish.get("agents") else ""
        session.begun_with_agent = bool(session.agent and one.agent)
        session.begin(binascii.a2b_base64(wish["script"]), self.directory)
        self.sessions[name] = session
        self.keeps = UNUSED_SECONDS
        self.watch(session.master, select.EPOLLIN, session)
        return session

    # --- terminals ---

    def read_terminal(self, session: Session) -> None:
        if session.read():
            return
        self.unwatch(session.master)
        os.close(session.master)
        session.master = -1
        self.reap()

    def write_terminal(self, session: Session) -> None:
        clients = session.write()
        for one in session.attached + session.watchers:
            if one.client in clients and not one.owes_since:
                one.owes_since = time.monotonic()

    def acknowledge(self, one: Attachment, session: Session) -> None:
        """Report taken input with the next output, after a moment, or where the client's window is half used."""
        taken = session.taken.get(one.client, 0)
        late = time.monotonic() - one.owes_since >= ACK_SECONDS
        if late or one.output or one.offset < session.end or taken - one.reported >= ACK_BYTES:
            one.owes_since = 0.0
            one.reported = taken
            one.send(Kind.TAKEN, OFFSET.pack(taken))

    def update(self, session: Session) -> None:
        """Read the terminal while the active client keeps up, or while nobody is there."""
        if session.master >= 0:
            active = session.active
            free = active is None or not active.joined or session.end - active.offset < BEHIND
            self.watch(session.master, select.EPOLLIN * free | select.EPOLLOUT * bool(session.typed), session)
        for one in session.attached + session.watchers:
            session.take_kept(one)
            self.watch(one.incoming, select.EPOLLIN * (len(one.kept) <= KEPT), one)

    def reap(self) -> None:
        """Take note of the programs that have ended; a terminal ends with the leader of its session."""
        for session in list(self.sessions.values()):
            if not session.has_ended():
                continue
            if session.master >= 0:
                self.unwatch(session.master)
                session.drain()
            del self.sessions[session.name]
            self.ended.append(session)
            del self.ended[:-ENDED_KEPT]
            session.point_agent()
            for one in session.attached + session.watchers:
                self.watch(one.incoming, select.EPOLLIN, one)
                self.flush(one)


def main(directory: str, ready: int) -> None:
    """Serve until nothing has been here for a while; ``ready`` is a descriptor to close once it listens."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    resident = Resident(directory)
    try:
        resident.open(first=True)
    except OSError:
        os._exit(0)  # another one was faster
    resident.notice_ends()
    os.close(ready)
    resident.run()
    resident.entrance.close()
    os._exit(0)
