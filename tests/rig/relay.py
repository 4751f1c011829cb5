"""A stretch of network that can be cut: a TCP relay on loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType

CHUNK = 1 << 16
# Of a slow one: bytes that are passed on at a time, and the receive buffer in front of it.
PIECE, BUFFER = 4096, 32 * 1024


class Relay:
    """Passes every connection to its own port on to ``target``, until it is cut. Takes over the ``listener``.

    ``slow``: bytes a second at most that come back.
    """

    def __init__(self, target: int, listener: socket.socket | None = None, slow: int | None = None) -> None:
        self._target = target
        self._slow = slow
        self._lock = threading.Lock()
        self._cut = False
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Relay:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Wakes the accept; a plain close would leave it waiting.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """Break everything that is open, and refuse what comes, until ``mend``."""
        with self._lock:
            self._cut = True
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Pass on what comes from now on."""
        with self._lock:
            self._cut = False

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                far = socket.socket()
                if self._slow is not None:
                    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
                if self._cut or far.connect_ex(("127.0.0.1", self._target)):
                    near.close()
                    far.close()
                    continue
                self._open |= {near, far}
            self._start(self._pass, near, far, None)
            self._start(self._pass, far, near, self._slow)

    def _pass(self, source: socket.socket, sink: socket.socket, slow: int | None) -> None:
        try:
            while chunk := source.recv(CHUNK if slow is None else PIECE):
                sink.sendall(chunk)
                if slow is not None:
                    time.sleep(len(chunk) / slow)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            # Broken, not ended: the other end would wait for ever, such as a browser for an answer.
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            # The second of the two directions closes both.
            if source in self._open and sink in self._open:
                self._open.discard(source)
            else:
                self._open.discard(sink)
                source.close()
                sink.close()
