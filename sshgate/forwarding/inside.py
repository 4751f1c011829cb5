"""The relay that runs in a sandbox: many connections over one pair of pipes. Sent as source, run by python3 there.

So: standard library only, Python 3.7. This file is the first part of the source, the loop in ``insideloop`` the second.
The relay ends when its stdin ends. A frame is a kind, a stream's number, a length and a payload. Each direction of a
stream may have ``WINDOW`` bytes in flight; CREDIT returns what was consumed, so a stream that is not read blocks no
other.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time  # noqa: F401  (for the second part)

HELLO = b"sshgate relay 1\n"
HEAD = struct.Struct(">BII")
OPEN, OPENED, FAILED, DATA, EOF, CLOSE, CREDIT, LISTEN, LISTENING, ACCEPTED = range(1, 11)
WINDOW = 256 * 1024
CHUNK = 32 * 1024
# First number of the streams that the relay opens (connections to a listener).
ACCEPTED_FROM = 1 << 31
# Bytes of queued output above which no socket is read.
OUTPUT_HIGH = 1 << 20
# Time for a peer to take its last bytes.
LINGER_SECONDS = 10.0

READ, WRITE = select.EPOLLIN, select.EPOLLOUT


class Stream:
    """One connection; ``addresses`` are those not tried yet."""

    def __init__(self, number: int, addresses: list[tuple[int, object]]) -> None:
        self.number = number
        self.addresses = addresses
        self.sock: socket.socket | None = None
        self.connecting = True
        self.credit = WINDOW
        self.taken = 0
        self.pending = bytearray()
        self.read_ended = False
        self.write_ending = False
        self.write_dead = False
        self.deadline = 0.0


class Listener:
    """Listening sockets with one number; ``remove``: paths to delete with it."""

    def __init__(self, number: int, socks: list[socket.socket], remove: list[str]) -> None:
        self.number = number
        self.socks = socks
        self.remove = remove


def number_of(host: str, port: int) -> tuple[int, object] | None:
    """The family and address of a numeric host, else None."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return family, (host, port)
    return None


def bind(listener: Listener, payload: bytes) -> bytes:
    """Make the listener's sockets. Returns its port or path. Raises ``OSError``."""
    if payload[:1] == b"t":
        port = int.from_bytes(payload[1:3], "big")
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
                listener.socks.append(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((host, port))
                port = sock.getsockname()[1]
            except OSError:
                # A sandbox may have only one of the two families.
                if family == socket.AF_INET:
                    raise
                listener.socks.pop().close()
        return port.to_bytes(2, "big")
    path = os.fsdecode(payload[1:])
    if payload[:1] == b"a":
        directory = private_directory()
        listener.remove.append(directory)
        path = directory + "/agent"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.socks.append(sock)
    before = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(before)
    listener.remove.insert(0, path)
    return os.fsencode(path)


def private_directory() -> str:
    """A new directory that only this user can enter."""
    name = "sshgate-agent-" + os.urandom(6).hex()
    for parent in ("/tmp", "/dev/shm", os.environ.get("HOME", "/")):
        path = os.path.join(parent, name)  # noqa: PTH118  (pathlib takes longer to import than the rest)
        try:
            os.mkdir(path, 0o700)  # noqa: PTH102
        except OSError:
            continue
        return path
    raise OSError(errno.EROFS, "no directory here can be written to")
