"""One program on a terminal that the resident keeps. A part of the resident: see there for what it may import."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import struct
import termios
import time

from sshgate.hold.frames import MYPY, Attachment
from sshgate.hold.replies import without_answers
from sshgate.hold.screen import title
from sshgate.stream.modes import Modes

if MYPY:
    from collections.abc import Iterable

# Bytes of output that are kept; a little more before it is cut, so that cutting costs little.
RING = 1 << 20
SLACK = 256 * 1024
# While more input than this waits for the program, each client's own is kept apart, where it holds up no other client.
# More than a gateway sends unacknowledged is kept of none: that client alone is not read.
TYPED = 256 * 1024
KEPT = 64 * 1024
READ = 64 * 1024
# A terminal gives 4 KiB at most. After as much as this it is read again at once, so often at most: a frame costs more.
MUCH = 1024
READS = 16
# Bytes of output that are read after the end of the program at most: others may have its terminal open.
DRAIN = 1 << 20
# Bytes of a list; a gateway takes frames of 64 KiB.
LARGEST_LIST = 60_000
# Clients whose taken input is remembered.
CLIENTS = 64
# Seconds between two window changes that make a program redraw: it has to notice both.
REDRAW_SECONDS = 0.1
# The script comes by descriptor 3, because one argument has 128 KiB at most.
START = 'eval "$(cat <&3)"'
# What a shell's process is called. Whatever else a session's process has become is a program.
SHELLS = ("sh", "bash", "ash", "dash", "zsh", "fish", "ksh", "mksh", "tcsh", "csh", "busybox", "nu", "elvish", "xonsh")
COMM = 15
# Variables of the program that the resident was started by.
NOT_PASSED = ("SHELL", "SHLVL", "PWD", "OLDPWD", "_")


class Session:
    """One program on a terminal. ``shell``: the name of the shell, which can be idle; ``""`` for a command."""

    def __init__(self, name: str, program: str, shell: str, detached_limit: float) -> None:
        self.id = os.urandom(8).hex()
        self.name = name
        self.program = program
        self.shell = shell
        self.detached_limit = detached_limit
        self.pid = 0
        self.master = -1
        self.size = (80, 24, 0, 0)
        self.ring = bytearray()
        self.start = 0
        self.modes = Modes()
        self.old_title = ""
        self.typed: list[tuple[str, bytes]] = []
        self.typed_size = 0
        # Bytes of each client's input that have come, and those of them that the program's terminal has taken.
        self.received: dict[str, int] = {}
        self.taken: dict[str, int] = {}
        # Of these clients, those that watch: they are forgotten first, however many come.
        self.guests: set[str] = set()
        self.attached: list[Attachment] = []
        # Who watches by a link: nothing of the session depends on them. The count grows with each change of `state`.
        self.watchers: list[Attachment] = []
        self.states = 0
        self.active: Attachment | None = None
        self.status: tuple[str, int] | None = None
        self.ended_at = 0.0
        self.reported = False
        self.reporter: Attachment | None = None
        self.created = self.used = self.last_output = self.detached = time.time()
        # Of a shell without clients: when it last worked, and what it and its ended children had used then.
        self.busy_at = 0.0
        self.work: tuple[str, ...] = ()
        self.redraw_at = self.redrawn = 0.0
        self.owes_redraw = False
        self.given_up: list[str] = []
        self.agent = ""
        """The program's SSHGATE_AGENT, a link of the session's own; ``""`` where agents are not forwarded."""
        self.begun_with_agent = False
        """Whether it is its SSH_AUTH_SOCK as well."""

    @property
    def end(self) -> int:
        return self.start + len(self.ring)

    def append(self, data: bytes) -> None:
        self.ring += data
        self.last_output = time.time()
        if len(self.ring) > RING + SLACK:
            cut = bytes(self.ring[: len(self.ring) - RING])
            self.modes.feed(cut)
            self.old_title = title(cut) or self.old_title
            del self.ring[: len(cut)]
            self.start += len(cut)

    def describe(self) -> dict[str, object]:
        return {
            "id": self.id,
            "name": self.name,
            "program": self.program,
            "title": (title(bytes(self.ring)) or self.old_title)[:80],
            "from": [one.source for one in self.attached[:4]],
            "watchers": [one.source for one in self.watchers],
            "size": list(self.size[:2]),
            "created": self.created,
            "detached": 0.0 if self.attached else self.detached,
            "ended": self.ended_at,
            "last_output": self.last_output,
            "status": list(self.status) if self.status else None,
        }

    def state(self) -> bytes:
        """What clients know besides the output: the size, and who watches."""
        return json.dumps({"size": self.size[:2], "watchers": [one.source for one in self.watchers]}).encode()

    # --- clients ---

    def take_in(self, one: Attachment) -> int:
        """Add a client, or one that watches. Returns how many bytes of its input have come."""
        if not one.watches:
            self.attached.append(one)
            return self.remember(one.client)
        self.watchers.append(one)
        self.states += 1
        if not one.wish.get("types"):
            return 0
        self.guests.add(one.client)
        return self.remember(one.client)

    def without(self, one: Attachment) -> None:
        """Take note that a client has left."""
        if one.watches:
            self.watchers.remove(one)
            self.states += 1
            return
        self.attached.remove(one)
        self.point_agent()
        self.detached = self.used = time.time()
        if self.active is one:
            self.active = None
            if self.attached:
                self.activate(self.attached[-1])

    # --- the program ---

    def begin(self, script: bytes, directory: str) -> None:
        """Start the program. Raises ``OSError``."""
        path = directory + "/" + self.id
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.unlink(path)  # noqa: PTH108  (pathlib takes longer to import than the rest)
            view = memoryview(script)
            while view:
                view = view[os.write(file, view) :]
            os.lseek(file, 0, os.SEEK_SET)
            self.master, slave = os.openpty()
            try:
                self.set_size()
                self.pid = os.fork()
            except OSError:
                os.close(self.master)
                os.close(slave)
                self.master = -1
                raise
            if not self.pid:
                self.become(slave, file)
            os.close(slave)
        finally:
            os.close(file)
        os.set_blocking(self.master, False)

    def become(self, slave: int, file: int) -> None:
        try:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for number in range(1, signal.NSIG):
                if number not in (signal.SIGKILL, signal.SIGSTOP):
                    try:
                        signal.signal(number, signal.SIG_DFL)
                    except (OSError, ValueError):
                        pass
            file = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 10)
            for fd in (0, 1, 2):
                os.dup2(slave, fd)
            os.dup2(file, 3)
            environment = {name: text for name, text in os.environ.items() if name not in NOT_PASSED}
            if self.agent:
                environment["SSHGATE_AGENT"] = self.agent
            if self.begun_with_agent:
                environment["SSH_AUTH_SOCK"] = self.agent
            os.execve("/bin/sh", ["sh", "-c", START], environment)
        finally:
            os._exit(127)

    def read(self) -> bool:
        """Read output, up to a bound. Returns whether the terminal is still open."""
        for _ in range(READS):
            try:
                data = os.read(self.master, READ)
            except BlockingIOError:
                return True
            except OSError as error:
                # EIO: no process has the terminal open any more.
                if error.errno != errno.EIO:
                    raise
                return False
            self.append(data)
            if len(data) < MUCH:
                return bool(data)
        return True

    def drain(self) -> None:
        """Read what is left after the program's end, and close the terminal."""
        before = self.end
        size = -1
        while size != self.end and self.end - before < DRAIN:
            size = self.end
            if not self.read():
                break
        os.close(self.master)
        self.master = -1

    def has_ended(self) -> bool:
        """Look whether the program has ended, and keep how."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pid, status = self.pid, 0
        if not pid:
            return False
        killed = os.WIFSIGNALED(status)
        self.status = ("signal", os.WTERMSIG(status)) if killed else ("exit", os.WEXITSTATUS(status))
        self.ended_at = time.time()
        self.typed, self.typed_size = [], 0
        return True

    def forget_output(self) -> None:
        self.old_title = title(bytes(self.ring)) or self.old_title
        self.start = self.end
        self.ring = bytearray()

    def type(self, one: Attachment, offset: int, data: bytes) -> None:
        """Queue input of a client, except what it has sent before, and what its terminal answers if it is not active.

        A query of the program reaches the terminals of all clients, and must have one answer.
        """
        if one.watches and not one.wish.get("types"):
            return
        received = self.received.get(one.client, 0) + len(one.kept)
        if offset > received:
            return
        one.kept += data[max(0, received - offset) :]
        self.take_kept(one)

    def take_kept(self, one: Attachment) -> None:
        """Queue what has come from a client, if there is room."""
        if not one.kept or self.typed_size > TYPED:
            return
        client, data = one.client, one.begun + one.kept
        self.received[client] = self.received.get(client, 0) + len(one.kept)
        one.begun = b""
        one.kept.clear()
        if one is not self.active:
            size = len(data)
            data, one.begun = without_answers(data)
            self.taken[client] = self.taken.get(client, 0) + size - len(data) - len(one.begun)
        if data:
            self.typed.append((client, data))
            self.typed_size += len(data)
            self.activate(one)

    def activate(self, one: Attachment) -> None:
        """The client that was active last decides the size; one that watches never does."""
        self.used = time.time()
        if one.watches:
            return
        self.active = one
        if self.size != one.size:
            self.size = one.size
            self.states += 1
            self.redraw_at = 0.0
            self.set_size()

    def point_agent(self) -> None:
        """Let SSHGATE_AGENT of the program lead to the agent of the client that came last and has one."""
        if not self.agent:
            return
        found = [one.agent for one in self.attached if one.agent and self.status is None]
        try:
            if found:
                try:
                    os.unlink(self.agent + "+")  # noqa: PTH108
                except OSError:
                    pass
                os.symlink(found[-1], self.agent + "+")  # noqa: PTH211
                os.rename(self.agent + "+", self.agent)  # noqa: PTH104
            else:
                os.unlink(self.agent)  # noqa: PTH108
        except OSError:
            pass

    def write(self) -> set[str]:
        """Write what was typed. Returns the clients whose input was taken."""
        clients = set()
        while self.typed and self.master >= 0:
            client, data = self.typed[0]
            try:
                size = os.write(self.master, data)
            except BlockingIOError:
                break
            except OSError:
                self.typed, self.typed_size = [], 0
                break
            self.typed_size -= size
            self.taken[client] = self.taken.get(client, 0) + size
            clients.add(client)
            if size == len(data):
                self.typed.pop(0)
            else:
                self.typed[0] = (client, data[size:])
        return clients

    def remember(self, client: str) -> int:
        """A client has attached. Returns how many bytes of its input have come; forget those that are gone."""
        received = self.received.pop(client, 0)
        self.received[client] = received
        here = {one.client for one in self.attached + self.watchers}
        left = [one for one in self.received if one != client and one not in here]
        left.sort(key=lambda one: one not in self.guests)
        for gone in left[: max(0, len(self.received) - CLIENTS)]:
            del self.received[gone]
            self.taken.pop(gone, None)
            self.guests.discard(gone)
        return received

    def set_size(self, other: bool = False) -> None:
        columns, rows, width, height = self.size
        if other:
            rows = rows - 1 if rows > 1 else 2
        if self.master >= 0:
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, width, height))

    def redraw(self, pause: float = 0.0) -> None:
        """Make the program redraw, by two window changes; later, if the last time was less than ``pause`` ago."""
        now = time.monotonic()
        self.owes_redraw = now - self.redrawn < pause
        if self.owes_redraw:
            return
        self.redrawn = now
        self.set_size(other=True)
        self.redraw_at = now + REDRAW_SECONDS

    def signal(self, name: str, foreground: bool) -> None:
        """Send a signal to the program's process group, or to its terminal's foreground group where that is known."""
        number = getattr(signal, "SIG" + name, None)
        if not isinstance(number, signal.Signals):
            return
        group = self.pid
        try:
            if foreground:
                group = os.tcgetpgrp(self.master)
        except OSError:
            pass  # gVisor answers only who is on the terminal
        try:
            # 0 is no group, and would be the resident's own.
            os.killpg(group if group > 1 else self.pid, number)
        except OSError:
            pass

    def hang_up(self) -> None:
        """As when a terminal is closed: its processes get HUP; what ignores that stays."""
        if self.master >= 0:
            self.signal("HUP", foreground=True)
        self.signal("HUP", foreground=False)
        self.signal("CONT", foreground=False)


def wished(one: Attachment, sessions: dict[str, Session], ended: list[Session]) -> tuple[Session | None, str]:
    """The session that a client wants, if there is one, and why it cannot have it."""
    wish = one.wish
    if wish["how"] in ("resume", "watch"):
        known = [*sessions.values(), *(ended if wish["how"] == "resume" else ())]
        found = next((each for each in known if each.id == wish["id"]), None)
        if found is None:
            return None, "gone"
        return found, "silent" if one.client in found.given_up else ""
    # A client whose exec broke before the answer asks again: what it has begun is not begun a second time.
    mine = next((each for each in [*sessions.values(), *ended] if one.client in each.received), None)
    if mine is not None:
        return mine, ""
    if wish["how"] == "named":
        return sessions.get(str(wish["name"])), ""
    left = [each for each in sessions.values() if not each.attached] if wish["how"] == "auto" else []
    return (max(left, key=lambda each: (bool(each.shell), each.used)) if left else None), ""


def listed(sessions: Iterable[Session]) -> bytes:
    """The sessions as JSON: the first of them that fit into one frame."""
    texts = []
    left = LARGEST_LIST
    for one in sessions:
        texts.append(json.dumps(one.describe()))
        left -= len(texts[-1]) + 2
        if left < 0:
            del texts[-1]
            break
    return ("[" + ", ".join(texts) + "]").encode()


def end_idle(sessions: Iterable[Session]) -> None:
    """Hang up the shells that nobody came back to, and that did nothing for as long.

    A shell works while it has a child, runs, or has become another program; short-lived children and its own commands
    show in its counters, unless its processor has had no time for it. One that works until after its client has left is
    kept for the whole time from then on.
    """
    now = time.time()
    left = [one for one in sessions if one.shell and not one.attached and one.status is None]
    parents, own = processes({one.pid for one in left}) if left else (set(), {})
    for one in left:
        name, runs, work = own.get(one.pid, ("", False, ()))
        if runs or one.pid in parents or name not in (*SHELLS, one.shell[:COMM]) or work != one.work:
            one.busy_at, one.work = now, work
        elif now - max(one.detached, one.busy_at, one.last_output) > one.detached_limit:
            one.hang_up()


def processes(pids: set[int]) -> tuple[set[int], dict[int, tuple[str, bool, tuple[str, ...]]]]:
    """The processes that have children; and of these ``pids`` the name, whether it runs, and counters of its work."""
    parents = set()
    own = {}
    for pid in os.listdir("/proc"):  # noqa: PTH208
        try:
            with open("/proc/" + pid + "/stat") as file:  # noqa: PTH123
                begin, _, rest = file.read().rpartition(")")
            words = rest.split()
            parents.add(int(words[1]))
            if int(pid) in pids:
                # Page faults of ended children; own time; time of ended children.
                own[int(pid)] = begin.partition("(")[2], words[0] == "R", (words[8], *words[11:15])
        except (OSError, ValueError, IndexError):
            continue
    return parents, own
