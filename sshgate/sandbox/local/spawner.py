"""The process that makes local sandboxes, apart from the gateway: one usher for each sandbox.

Started by its path, so it is small, forks in well under a millisecond and imports the standard library
only. The spawner forks an usher for every sandbox the gateway asks for. An usher starts bubblewrap, enters
the namespaces that bubblewrap has made, and from then on starts programs in them, passes signals on and
tells how they ended. When the gateway's end of its socket closes, for whatever reason, it kills the sandbox.

Messages are small JSON objects on SOCK_SEQPACKET sockets; what may be long travels in a memory file.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import termios
import time
from dataclasses import dataclass
from typing import Any

MESSAGE = 4096
FDS = 8
# Namespaces that bubblewrap makes for a sandbox, as setns(2) takes them, and the cgroup one, which an
# ordinary user may not always make.
NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
NEW_CGROUP = 0x02000000
PR_SET_NO_NEW_PRIVS = 38
PR_CAPBSET_DROP = 24
LAST_CAPABILITY = 63
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431
# A program whose user has left has this long to leave by itself after SIGHUP.
PARTING_SECONDS = 1.0
# Descriptors below this are given to bubblewrap by number; everything else is moved out of their way.
FIRST_FREE_FD = 10
DEFAULT_SIGNALS = [
    number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP) and number < 32
]

libc = ctypes.CDLL(None, use_errno=True)


class Gone(Exception):
    """The gateway has closed its end, or the sandbox is over."""


@dataclass
class Child:
    """A program of the sandbox; unreaped until the gateway has let go of it, so that its pid stays its own."""

    pid: int
    ended: bool = False
    closed: bool = False
    kill_at: float | None = None


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next message and the descriptors that came with it. Raises ``Gone`` after the last one."""
    try:
        text, fds, _, _ = socket.recv_fds(channel, MESSAGE, FDS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError as error:
        raise Gone from error
    if not text:
        raise Gone
    return json.loads(text), fds


def send(channel: socket.socket, message: dict[str, Any], fds: list[int] | None = None) -> None:
    """Send a message; raises ``Gone`` when nobody listens."""
    try:
        socket.send_fds(channel, [json.dumps(message).encode()], fds or [])
    except OSError as error:
        raise Gone from error


def contents(fd: int) -> bytes:
    """All of a memory file, and close it."""
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read()


class Usher:
    """One sandbox, from bubblewrap's start to its end."""

    def __init__(self, channel: socket.socket, order: dict[str, Any]) -> None:
        self.channel = channel
        self.order = order
        self.children: dict[int, Child] = {}
        self.bubblewrap: int | None = None
        self.root: int | None = None  # a pidfd of the sandbox's process 1
        self.over = False
        self.deadline = time.monotonic() + order["lifetime"]
        self.wakeup, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve the gateway until it closes; then leave nothing behind."""
        try:
            self.become()
            complaint = self.build()
            if complaint is not None:
                send(self.channel, {"failed": complaint})
                return
            send(self.channel, {"ready": True})
            while True:
                self.serve()
        except Gone:
            pass
        finally:
            self.finish()

    def become(self) -> None:
        """Give up root for the account that owns the sandbox outside, and whatever else is inherited."""
        os.umask(0o022)
        if self.order["outside"] is not None:
            user, group = self.order["outside"]
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
        os.environ.clear()
        os.environ.update(self.order["environment"])

    # --- the start ---

    def build(self) -> str | None:
        """Start bubblewrap and enter what it has made. Returns its complaint when it could not."""
        arguments = os.memfd_create("arguments")
        os.write(arguments, b"".join(os.fsencode(word) + b"\0" for word in self.order["arguments"]))
        os.lseek(arguments, 0, os.SEEK_SET)
        holder_in, self.holder = os.pipe2(os.O_CLOEXEC)
        ready, holder_out = os.pipe2(os.O_CLOEXEC)
        said, complain = os.pipe2(os.O_CLOEXEC)
        told, tell = os.pipe2(os.O_CLOEXEC)
        # The holder is a cat: it keeps the sandbox alive, sends back this byte when all is set up, and ends
        # with its input, should everything else fail to end it.
        os.write(self.holder, b".")
        given = [holder_in, holder_out, complain, arguments, tell]
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD) for fd in given]
        bubblewrap = self.order["bubblewrap"]
        try:
            self.bubblewrap = os.posix_spawn(
                bubblewrap,
                [bubblewrap, "--args", "3", "--info-fd", "4", "--", "/bin/cat"],
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(moved)],
                setsigdef=DEFAULT_SIGNALS,
                setsigmask=[],
            )
        except OSError as error:
            return f"{bubblewrap}: {error.strerror}"
        for fd in given + moved:
            os.close(fd)
        if not self.listen_for(ready):
            return os.read(said, 4000).decode("utf-8", "replace").strip() or "bubblewrap ended without a word"
        os.set_blocking(told, False)
        process = json.loads(os.read(told, 4000))["child-pid"]
        for fd in (ready, said, told):
            os.close(fd)
        self.root = os.pidfd_open(process)
        return self.enter(self.root)

    def listen_for(self, ready: int) -> bool:
        """Wait for the holder's byte; False when it cannot come any more. Raises ``Gone``."""
        waiting = select.poll()
        waiting.register(ready, select.POLLIN)
        # Only the gateway's going matters now; what it asks for can wait in the socket.
        waiting.register(self.channel, select.POLLRDHUP)
        while True:
            happened = dict(waiting.poll())
            if ready in happened:
                return os.read(ready, 1) == b"."
            if happened.get(self.channel.fileno(), 0) & (select.POLLHUP | select.POLLRDHUP | select.POLLERR):
                raise Gone

    def enter(self, root: int) -> str | None:
        """Join the sandbox: programs started from now on are in it, without any privilege."""
        if libc.setns(root, NAMESPACES | NEW_CGROUP) != 0 and libc.setns(root, NAMESPACES) != 0:
            return f"entering the namespaces: {os.strerror(ctypes.get_errno())}"
        os.chdir(self.order["home"])
        for capability in range(LAST_CAPABILITY + 1):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            return f"giving up privileges: {os.strerror(ctypes.get_errno())}"
        for name, value in self.order["limits"].items():
            number = getattr(resource, name)
            hard = resource.getrlimit(number)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            soft = min(value, self.order["soft"].get(name, value))
            resource.setrlimit(number, (soft, value))
        return None

    # --- the life ---

    def serve(self) -> None:
        """Wait for one thing to happen and do it."""
        times = [child.kill_at for child in self.children.values() if child.kill_at is not None]
        patience = max(0.0, min([self.deadline, *times]) - time.monotonic())
        ready, _, _ = select.select([self.channel.fileno(), self.wakeup], [], [], patience)
        if self.wakeup in ready:
            os.read(self.wakeup, 4096)
            self.look()
        if self.channel.fileno() in ready:
            message, fds = receive(self.channel)
            try:
                getattr(self, "do_" + message["do"])(message, fds)
            finally:
                for fd in fds:
                    os.close(fd)
        now = time.monotonic()
        if now >= self.deadline:
            raise Gone
        for child in self.children.values():
            if child.kill_at is not None and child.kill_at <= now:
                child.kill_at = None
                self.kill(child, signal.SIGKILL)

    def look(self) -> None:
        """Tell of the programs that have ended since the last look."""
        for number, child in list(self.children.items()):
            if child.ended:
                continue
            # Not reaped yet: as long as it is a zombie, no other process can get its number.
            found = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                continue
            child.ended = True
            child.kill_at = None
            send(
                self.channel,
                {
                    "ended": number,
                    "signalled": found.si_code != os.CLD_EXITED,
                    "core": found.si_code == os.CLD_DUMPED,
                    "status": found.si_status,
                },
            )
            if child.closed:
                self.forget(number, child)

    def do_start(self, message: dict[str, Any], fds: list[int]) -> None:
        """Start a program on pipes, or on a new terminal of the sandbox."""
        number = message["number"]
        argv = [os.fsdecode(word) for word in contents(fds.pop()).split(b"\0")]
        ours: list[int] = []
        theirs: list[int] = []
        try:
            if message["terminal"] is None:
                actions = pipes(ours, theirs)
            else:
                actions = terminal(ours, theirs, message["terminal"])
            pid = os.posix_spawnp(
                argv[0],
                argv,
                os.environ,
                file_actions=actions,
                setsid=True,
                setsigdef=DEFAULT_SIGNALS,
                setsigmask=[],
            )
            self.children[number] = Child(pid)
            send(self.channel, {"started": number}, ours)
        except OSError as error:
            send(self.channel, {"unstarted": number, "errno": error.errno or errno.EIO})
        finally:
            for fd in ours + theirs:
                os.close(fd)

    def do_signal(self, message: dict[str, Any], _fds: list[int]) -> None:
        """Signal a program's process group."""
        child = self.children.get(message["number"])
        if child is not None:
            self.kill(child, message["signal"])

    def do_close(self, message: dict[str, Any], _fds: list[int]) -> None:
        """The gateway has let go of a program: end its process group, if it has not ended by itself."""
        child = self.children.get(message["number"])
        if child is None:
            return
        child.closed = True
        if child.ended:
            self.forget(message["number"], child)
            return
        self.kill(child, signal.SIGHUP)
        self.kill(child, signal.SIGCONT)
        child.kill_at = time.monotonic() + PARTING_SECONDS

    def kill(self, child: Child, number: int) -> None:
        try:
            os.killpg(child.pid, number)
        except OSError:
            pass  # the group has ended, or the number is no signal's

    def forget(self, number: int, child: Child) -> None:
        os.waitpid(child.pid, 0)
        del self.children[number]

    # --- the end ---

    def finish(self) -> None:
        """Kill everything and wait until it is gone."""
        if self.root is not None:
            try:
                signal.pidfd_send_signal(self.root, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.bubblewrap is not None:
            os.kill(self.bubblewrap, signal.SIGKILL)
        # Process 1 cannot go before the programs that this process has to reap.
        while True:
            try:
                os.wait()
            except ChildProcessError:
                break
        self.channel.close()


def pipes(ours: list[int], theirs: list[int]) -> list[tuple[int, int, int]]:
    """Three pipes; ``ours`` become the gateway's ends (stdin, stdout, stderr)."""
    for parent_writes in (True, False, False):
        reading, writing = os.pipe2(os.O_CLOEXEC)
        ours.append(writing if parent_writes else reading)
        theirs.append(reading if parent_writes else writing)
        os.set_blocking(ours[-1], False)
    return [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(theirs)]


def terminal(ours: list[int], theirs: list[int], size: list[int]) -> list[tuple[Any, ...]]:
    """A terminal of the sandbox's own devpts; ``ours`` becomes its master."""
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    ours.append(master)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    (index,) = struct.unpack("I", fcntl.ioctl(master, TIOCGPTN, struct.pack("I", 0)))
    columns, rows, width, height = size
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, width, height))
    # The first terminal that a session's leader opens becomes its controlling terminal.
    return [
        (os.POSIX_SPAWN_OPEN, 0, f"/dev/pts/{index}", os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
    ]


def usher(channel: socket.socket, order: bytes) -> None:
    """The life of a forked usher."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    Usher(channel, json.loads(order)).run()


def main() -> None:
    """Fork an usher for each order on stdin's socket, until it closes; then remove ``argv[1]``."""
    control = socket.socket(fileno=0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        while True:
            _, (channel_fd, order_fd) = receive(control)
            if os.fork() == 0:
                status = 1
                try:
                    control.close()
                    usher(socket.socket(fileno=channel_fd), contents(order_fd))
                    status = 0
                finally:
                    os._exit(status)
            os.close(channel_fd)
            os.close(order_fd)
    except Gone:
        pass
    finally:
        shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
