"""The relay that runs in a sandbox: many connections over one pair of pipes. Sent as source, run by python3 there.

So: standard library only, Python 3.7, nothing of ours. The relay ends when its stdin ends. A frame is a kind, a stream
number, a length and a payload. Each direction of a stream may have ``WINDOW`` bytes in flight; CREDIT returns what was
consumed, so a stream that is not read blocks no other.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time

HELLO = b"sshgate relay 1\n"
HEAD = struct.Struct(">BII")
OPEN, OPENED, FAILED, DATA, EOF, CLOSE, CREDIT, LISTEN, LISTENING, ACCEPTED = range(1, 11)
WINDOW = 256 * 1024
CHUNK = 32 * 1024
# First number of the streams that the relay opens (connections to a listener).
ACCEPTED_FROM = 1 << 31
# Bytes of queued output above which no socket is read.
OUTPUT_HIGH = 1 << 20
# Time for a peer to take more of its last bytes.
LINGER_SECONDS = 10.0
# Time without an accept after one has failed, unless a descriptor becomes free: a listener stays readable.
ACCEPT_PAUSE = 1.0

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
                for sock in listener.socks[1:]:
                    sock.close()
                del listener.socks[1:]
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


def send_at_once(sock: socket.socket) -> None:
    """Otherwise a second small piece waits for the first one's delayed acknowledgement, 40 ms."""
    if sock.family != socket.AF_UNIX:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            pass  # the peer has closed it; reading shows that


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


class Relay:
    """The event loop with its streams and listeners."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.masks: dict[int, int] = {}
        self.streams: dict[int, Stream] = {}
        self.by_fd: dict[int, Stream | Listener] = {}
        self.listeners: dict[int, Listener] = {}
        self.input = bytearray()
        self.output = bytearray()
        self.next = ACCEPTED_FROM
        self.resolved: list[tuple[Stream, list[tuple[int, object]], str]] = []
        self.wake, self.wake_end = os.pipe()
        # Listeners whose accept has failed, and until when they wait.
        self.stalled: list[int] = []
        self.stalled_until = 0.0
        self.closing: set[Stream] = set()

    def run(self) -> None:
        os.set_blocking(1, False)
        self.output += HELLO
        self.watch(0, READ)
        self.watch(self.wake, READ)
        while True:
            self.watch(1, WRITE if self.output else 0)
            # The gateway's frames last: they close descriptors and reuse their numbers, and the rest of the batch
            # would go to the wrong ones.
            wait = 1.0 if self.closing or self.stalled else -1
            for fd, events in sorted(self.epoll.poll(wait), key=lambda one: one[0] == 0):
                if fd == 0:
                    data = os.read(0, 65536)
                    if not data:
                        return
                    self.received(data)
                elif fd == 1:
                    self.flush()
                elif fd == self.wake:
                    self.names_found()
                else:
                    self.ready(fd, events)
            self.flush()
            if self.closing:
                self.cut_late()
            if self.stalled and self.stalled_until <= time.monotonic():
                self.accept_again()

    def watch(self, fd: int, mask: int) -> None:
        # Without interest it is unregistered: epoll always reports a hang-up.
        old = self.masks.get(fd, 0)
        if mask == old:
            return
        if not old:
            self.epoll.register(fd, mask)
        elif mask:
            self.epoll.modify(fd, mask)
        else:
            self.epoll.unregister(fd)
        self.masks[fd] = mask

    # --- the gateway ---

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.output += HEAD.pack(kind, number, len(payload)) + payload

    def flush(self) -> None:
        stuck = len(self.output) > OUTPUT_HIGH
        while self.output:
            try:
                del self.output[: os.write(1, self.output[:65536])]
            except BlockingIOError:
                break
        if stuck and len(self.output) <= OUTPUT_HIGH:
            for stream in list(self.streams.values()):
                self.update(stream)

    def received(self, data: bytes) -> None:
        self.input += data
        at = 0
        while len(self.input) - at >= HEAD.size:
            kind, number, length = HEAD.unpack_from(self.input, at)
            end = at + HEAD.size + length
            if len(self.input) < end:
                break
            self.frame(kind, number, bytes(self.input[at + HEAD.size : end]))
            at = end
        del self.input[:at]

    def frame(self, kind: int, number: int, payload: bytes) -> None:
        if kind == OPEN:
            self.open(number, payload)
            return
        if kind == LISTEN:
            self.listen(number, payload)
            return
        if kind == CLOSE and number in self.listeners:
            self.unlisten(self.listeners.pop(number))
            return
        stream = self.streams.get(number)
        if stream is None:
            return
        if kind == DATA:
            stream.pending += payload
        elif kind == EOF:
            stream.write_ending = True
        elif kind == CREDIT:
            stream.credit += int.from_bytes(payload, "big")
        elif kind == CLOSE:
            stream.write_ending = stream.read_ended = True
            stream.deadline = time.monotonic() + LINGER_SECONDS
            self.closing.add(stream)
        self.write(stream)

    # --- opening ---

    def open(self, number: int, payload: bytes) -> None:
        stream = self.streams[number] = Stream(number, [])
        if payload[:1] == b"u":
            stream.addresses = [(socket.AF_UNIX, payload[1:])]
            self.attempt(stream, "")
            return
        port = int.from_bytes(payload[1:3], "big")
        hosts = payload[3:].decode().split("\n")
        numbers = [number_of(host, port) for host in hosts]
        found = [address for address in numbers if address is not None]
        if len(found) == len(hosts):
            stream.addresses = found
            self.attempt(stream, "")
        else:
            try:
                import threading

                threading.Thread(target=self.look_up, args=(stream, hosts[0], port), daemon=True).start()
            except (RuntimeError, OSError, ImportError):
                # The sandbox has as many processes or open files as it may; the other connections go on.
                self.attempt(stream, "the sandbox can start no thread to look up the name")

    def look_up(self, stream: Stream, host: str, port: int) -> None:
        reason = ""
        found: list[tuple[int, object]] = []
        try:
            for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                found.append((family, address))
        except (OSError, UnicodeError, LookupError):  # without a descriptor, idna cannot be imported
            reason = "the sandbox does not know this name"
        self.resolved.append((stream, found, reason))
        os.write(self.wake_end, b"x")

    def names_found(self) -> None:
        os.read(self.wake, 4096)
        while self.resolved:
            stream, found, reason = self.resolved.pop(0)
            stream.addresses = found
            if self.streams.get(stream.number) is stream:
                self.attempt(stream, reason)

    def attempt(self, stream: Stream, reason: str) -> None:
        """Try the next address; send FAILED when none is left."""
        while stream.addresses:
            family, address = stream.addresses.pop(0)
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                reason = str(error.strerror)
                continue
            sock.setblocking(False)
            code = sock.connect_ex(address)  # type: ignore[arg-type]
            if code in (0, errno.EINPROGRESS):
                stream.sock = sock
                self.by_fd[sock.fileno()] = stream
                if code:
                    self.watch(sock.fileno(), WRITE)
                else:
                    self.connected(stream)
                return
            sock.close()
            reason = os.strerror(code)
        self.send(FAILED, stream.number, reason.encode())
        self.forget(stream)

    def connected(self, stream: Stream) -> None:
        assert stream.sock is not None
        code = stream.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.drop(stream)
            self.attempt(stream, os.strerror(code))
            return
        stream.connecting = False
        send_at_once(stream.sock)
        self.send(OPENED, stream.number)
        self.write(stream)

    # --- listening ---

    def listen(self, number: int, payload: bytes) -> None:
        listener = Listener(number, [], [])
        try:
            chosen = bind(listener, payload)
            for sock in listener.socks:
                sock.listen(64)
        except OSError as error:
            self.unlisten(listener)
            self.send(FAILED, number, (error.strerror or "cannot listen").encode())
            return
        self.listeners[number] = listener
        for sock in listener.socks:
            sock.setblocking(False)
            self.by_fd[sock.fileno()] = listener
            self.watch(sock.fileno(), READ)
        self.send(LISTENING, number, chosen)

    def unlisten(self, listener: Listener) -> None:
        for sock in listener.socks:
            self.watch(sock.fileno(), 0)
            self.by_fd.pop(sock.fileno(), None)
            sock.close()
        for path in listener.remove:
            try:
                os.unlink(path)  # noqa: PTH108
            except OSError:
                try:
                    os.rmdir(path)  # noqa: PTH106
                except OSError:
                    pass

    def accept(self, listener: Listener, fd: int) -> None:
        sock = next(one for one in listener.socks if one.fileno() == fd)
        try:
            made, peer = sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # its peer has left
        except OSError:
            # Mostly no descriptor is left.
            self.watch(fd, 0)
            self.stalled.append(fd)
            self.stalled_until = time.monotonic() + ACCEPT_PAUSE
            return
        made.setblocking(False)
        send_at_once(made)
        host, port = (peer[0], peer[1]) if isinstance(peer, tuple) else ("", 0)
        stream = self.streams[self.next] = Stream(self.next, [])
        self.next += 1
        stream.sock, stream.connecting = made, False
        self.by_fd[made.fileno()] = stream
        self.send(ACCEPTED, listener.number, struct.pack(">IH", stream.number, port) + host.encode())
        self.update(stream)

    # --- connections ---

    def ready(self, fd: int, events: int) -> None:
        what = self.by_fd.get(fd)
        if isinstance(what, Listener):
            self.accept(what, fd)
        elif what is not None and what.connecting:
            self.connected(what)
        elif what is not None:
            if events & ~WRITE and not what.read_ended and what.credit > 0:
                self.read(what)
            if what.sock is not None:
                self.write(what)

    def read(self, stream: Stream) -> None:
        assert stream.sock is not None
        try:
            data = stream.sock.recv(min(CHUNK, stream.credit))
        except BlockingIOError:
            return
        except OSError:
            self.send(CLOSE, stream.number)
            self.forget(stream)
            return
        if data:
            stream.credit -= len(data)
            self.send(DATA, stream.number, data)
        else:
            stream.read_ended = True
            self.send(EOF, stream.number)

    def write(self, stream: Stream) -> None:
        if stream.sock is None or stream.connecting:
            if stream.deadline:
                self.forget(stream)
            return
        size = len(stream.pending)
        if not stream.write_dead:
            try:
                while stream.pending:
                    del stream.pending[: stream.sock.send(stream.pending[:65536])]
                    if stream.deadline:
                        stream.deadline = time.monotonic() + LINGER_SECONDS
                if stream.write_ending:
                    stream.sock.shutdown(socket.SHUT_WR)
                    stream.write_dead = True
            except BlockingIOError:
                pass
            except OSError:
                stream.write_dead = True
        if stream.write_dead:
            stream.pending.clear()
        stream.taken += size - len(stream.pending)
        if stream.deadline and not stream.pending:
            self.forget(stream)
            return
        if stream.read_ended and stream.write_dead:
            # Also if the peer takes nothing more: who sends to it must get to know.
            self.send(CLOSE, stream.number)
            self.forget(stream)
            return
        if stream.taken >= WINDOW // 4:
            self.send(CREDIT, stream.number, stream.taken.to_bytes(4, "big"))
            stream.taken = 0
        self.update(stream)

    def update(self, stream: Stream) -> None:
        if stream.sock is None or stream.connecting:
            return
        readable = not stream.read_ended and stream.credit > 0 and len(self.output) <= OUTPUT_HIGH
        self.watch(stream.sock.fileno(), READ * readable | WRITE * bool(stream.pending))

    def drop(self, stream: Stream) -> None:
        if stream.sock is not None:
            self.watch(stream.sock.fileno(), 0)
            self.by_fd.pop(stream.sock.fileno(), None)
            stream.sock.close()
            stream.sock = None

    def forget(self, stream: Stream) -> None:
        self.drop(stream)
        self.streams.pop(stream.number, None)
        self.closing.discard(stream)
        self.accept_again()

    def accept_again(self) -> None:
        while self.stalled:
            fd = self.stalled.pop()
            if isinstance(self.by_fd.get(fd), Listener):
                self.watch(fd, READ)

    def cut_late(self) -> None:
        now = time.monotonic()
        for stream in [one for one in self.closing if one.deadline <= now]:
            self.forget(stream)


def main() -> None:
    """Serve until stdin ends."""
    relay = Relay()
    try:
        relay.run()
    except (BrokenPipeError, KeyboardInterrupt):
        pass
    finally:
        for listener in relay.listeners.values():
            relay.unlisten(listener)


if __name__ == "__main__":
    main()
