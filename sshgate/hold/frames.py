"""The frames between a gateway and the resident of a sandbox: a kind, a length and a payload; and the resident's ends.

Also a part of the resident: standard library only, Python 3.7, nothing of ours.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import signal
import socket
import struct
import time

# For mypy only: importing typing takes longer than the rest.
MYPY = False
if MYPY:
    from typing import Any

# Its number changes with the frames: a resident of another version is not joined. Listing and ending sessions never
# change, so that every version can do that.
HELLO = b"sshgate hold 2\n"
FULL = b"sshgate hold full\n"
HEAD = struct.Struct(">BI")
OFFSET = struct.Struct(">Q")
SIZE = struct.Struct(">HHHH")


# Seconds without any frame of an attachment; of one that has joined nothing, because launchers wait as long.
SILENT_SECONDS = 60.0
PARKED_SECONDS = 3600.0
# Seconds without an accept after one has failed. It fails until a descriptor is free, and the socket stays readable.
ACCEPT_PAUSE = 1.0
# How often, and after how many seconds, a resident is tried to open whose place another one has that is ending.
OPEN_TRIES = 40
OPEN_PAUSE = 0.025


class Kind:
    """The kinds of frames: first those from the gateway, then those from the resident."""

    JOIN, INPUT, RESIZE, SIGNAL, ALIVE, PING, LIST, END, REPORTED = range(1, 10)
    JOINED, FAILED, SCREEN, OUTPUT, TAKEN, ENDED, PROBE, PONG, LISTED, STATE = range(101, 111)


class Attachment:
    """One exec of a gateway, by its pipes ``source`` -> ``sink``; ``control`` ends its program when closed."""

    def __init__(self, control: socket.socket, incoming: int, outgoing: int) -> None:
        self.control = control
        self.incoming = incoming
        self.outgoing = outgoing
        self.input = bytearray()
        self.output = bytearray(HELLO)
        self.session: Any = None
        self.client = ""
        self.source = ""
        self.size = (80, 24, 0, 0)
        self.offset = 0
        self.joined = False
        # Whether it only watches; and what it knows of its session's `state`.
        self.watches = False
        self.states = -1
        # When one that watches was last shown a screen.
        self.screen_at = 0.0
        # The socket of the client's agent; the beginning of what may be an answer of its terminal.
        self.agent = ""
        self.begun = b""
        # Input that has come and is not queued yet.
        self.kept = bytearray()
        self.last_frame = time.monotonic()
        self.finished = False
        self.last = False
        # A login that waits for signs of life: who has not answered yet, until when, and with what it came.
        self.waits: list[Attachment] = []
        self.wait_until = 0.0
        # Since when, and up to where, the client's input was taken without and with a report.
        self.owes_since = 0.0
        self.reported = 0
        self.wish: dict[str, Any] = {}

    def close(self) -> None:
        for fd in (self.incoming, self.outgoing):
            try:
                os.set_blocking(fd, True)  # the launcher has the same open files
            except OSError:
                pass
            os.close(fd)
        self.control.close()

    def send(self, kind: int, payload: bytes = b"") -> None:
        self.output += HEAD.pack(kind, len(payload)) + payload

    def fail(self, code: str) -> None:
        self.send(Kind.FAILED, code.encode())
        self.last = True

    def is_slow(self) -> bool:
        """Whether it watches, and output that it has not had is kept no longer."""
        return self.watches and self.joined and self.offset < self.session.start

    def is_silent(self, now: float) -> bool:
        return now - self.last_frame > (PARKED_SECONDS if self.session is None else SILENT_SECONDS)


class Listener:
    """The socket of a resident in the directory of its user, and a lock that is held until the process ends."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.path = directory + "/socket"
        self.lock = -1
        self.inode = 0
        # Until when no connection is accepted, because no descriptor was left for it.
        self.pauses_until = 0.0
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def open(self) -> None:
        """Listen, also after what was there was deleted. Raises ``OSError``, also where another resident does."""
        self.listener.close()
        self.inode = 0
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1
        for tries_left in 2, 1, 0:
            try:
                os.mkdir(self.directory, 0o700)  # noqa: PTH102  (pathlib takes longer to import than the rest)
            except OSError:
                pass
            if os.lstat(self.directory).st_uid != os.getuid():
                raise PermissionError(self.directory)
            self.lock = os.open(self.directory + "/lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # No link: a resident that has just ended removed it. Some file systems count none of any file.
            if os.fstat(self.lock).st_nlink or not tries_left:
                break
            os.close(self.lock)
            self.lock = -1
        os.ftruncate(self.lock, 0)
        os.write(self.lock, HELLO)
        try:
            os.unlink(self.path)  # noqa: PTH108
        except OSError:
            pass
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.listener.setblocking(False)
        self.inode = os.lstat(self.path).st_ino

    def open_soon(self) -> None:
        """As ``open``, but wait for a resident that is just ending: it has a lock, and no socket any more."""
        for _ in range(OPEN_TRIES):
            try:
                self.open()
                return
            except (BlockingIOError, FileNotFoundError):
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
                    if not other.connect_ex(self.path):
                        break
                time.sleep(OPEN_PAUSE)
        raise BlockingIOError(self.path)

    def accept(self) -> socket.socket | None:
        """The next connection. ``None``: there is none, or there can be none until ``pauses_until``."""
        try:
            control, _ = self.listener.accept()
        except BlockingIOError:
            return None
        except OSError:
            self.pauses_until = time.monotonic() + ACCEPT_PAUSE
            return None
        control.setblocking(False)
        return control

    def close(self) -> None:
        """Remove the socket, the lock and the directory, unless somebody else's are there by now."""
        try:
            if self.is_there():
                os.unlink(self.path)  # noqa: PTH108
                os.unlink(self.directory + "/lock")  # noqa: PTH108
                os.rmdir(self.directory)  # noqa: PTH106
        except OSError:
            pass

    def is_there(self) -> bool:
        try:
            return os.lstat(self.path).st_ino == self.inode
        except OSError:
            return False


def received_pipes(control: socket.socket) -> list[int]:
    """The descriptors that a program hands over with its first byte."""
    fds = array.array("i")
    try:
        _, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(2 * fds.itemsize))
    except OSError:
        return []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def refuse(control: socket.socket, fds: list[int]) -> None:
    """Close what an attachment brought that finds no place."""
    try:
        os.write(fds[1], FULL)  # a few bytes into an empty pipe
    except (OSError, IndexError):
        pass
    for one in fds:
        os.close(one)
    control.close()


class Watcher:
    """The descriptors that an event loop waits for, each with its owner."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.masks: dict[int, int] = {}
        self.by_fd: dict[int, object] = {}

    def watch(self, fd: int, mask: int, owner: object) -> None:
        old = self.masks.get(fd, 0)
        self.by_fd[fd] = owner
        if mask == old:
            return
        if not old:
            self.epoll.register(fd, mask)
        elif mask:
            self.epoll.modify(fd, mask)
        else:
            # Without interest it is unregistered: epoll always reports a hang-up.
            self.epoll.unregister(fd)
        self.masks[fd] = mask

    def notice_ends(self) -> None:
        """Wake up when a program has ended."""
        self.wake, wake_end = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(wake_end, False)
        signal.set_wakeup_fd(wake_end)
        signal.signal(signal.SIGCHLD, lambda number, where: None)
        self.watch(self.wake, select.EPOLLIN, None)

    def unwatch(self, fd: int) -> None:
        self.watch(fd, 0, None)
        del self.by_fd[fd], self.masks[fd]
