"""One bubblewrap tree, as the gateway holds it: the socket to its usher."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

from sshgate.errors import ProgramMissing, StartFailed
from sshgate.sandbox.local.process import LocalProcess
from sshgate.sandbox.local.system import remedy
from sshgate.streams import Exited, Lost, Outcome, Signalled
from sshgate.terminal import Terminal

MESSAGE = 4096
FDS = 8


class LocalSandbox:
    """See ``sshgate.sandbox.provider.Sandbox``.

    ``patience`` is how many seconds a start may take; ``forget`` is called once nothing of it is left.
    """

    def __init__(
        self, name: str, channel: socket.socket, patience: float, forget: Callable[[LocalSandbox], None]
    ) -> None:
        self.id = name
        self.gone = asyncio.Event()
        """Set when no process of it is left."""
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._patience = patience
        self._forget = forget
        self._count = 0
        self._starting: dict[int, tuple[asyncio.Future[LocalProcess], bool]] = {}
        self._running: dict[int, LocalProcess] = {}
        self._deleted = False
        self._failure: str | None = None
        channel.setblocking(False)
        self._loop.add_reader(channel.fileno(), self._heard)

    def __repr__(self) -> str:
        state = "gone" if self.gone.is_set() else "deleted" if self._deleted else "there"
        return f"<LocalSandbox {self.id} {state}: {len(self._running)} running, {len(self._starting)} starting>"

    async def start(self, argv: Sequence[str], terminal: Terminal | None) -> LocalProcess:
        if self._failure is not None:
            raise StartFailed(self._failure)
        self._count += 1
        number = self._count
        answer: asyncio.Future[LocalProcess] = self._loop.create_future()
        self._starting[number] = answer, terminal is not None
        try:
            self._ask_to_start(number, argv, terminal)
            async with asyncio.timeout(self._patience):
                return await answer
        except BaseException as error:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                await answer.result().close()
            else:
                self._tell({"do": "close", "number": number})
            if isinstance(error, TimeoutError):
                raise StartFailed(f"the sandbox did not start within {self._patience:g} s; try again.") from error
            raise
        finally:
            self._starting.pop(number, None)

    async def delete(self) -> None:
        self._deleted = True
        self._failure = self._failure or "the sandbox has been ended; log in again for a new one."
        if not self.gone.is_set():
            try:
                self._channel.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # its usher has gone first

    # --- to the usher ---

    def _ask_to_start(self, number: int, argv: Sequence[str], terminal: Terminal | None) -> None:
        size = None
        if terminal is not None:
            size = [terminal.size.columns, terminal.size.rows, terminal.size.pixel_width, terminal.size.pixel_height]
        program = os.memfd_create("program")
        try:
            with open(program, "wb", closefd=False) as file:
                file.write(b"\0".join(os.fsencode(word) for word in argv))
            self._tell({"do": "start", "number": number, "terminal": size}, [program])
        finally:
            os.close(program)

    def _tell(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Messages are few and small; when they do not fit into the socket, the usher has stopped."""
        if self.gone.is_set() or self._deleted:
            return
        try:
            socket.send_fds(self._channel, [json.dumps(message).encode()], fds)
        except OSError:
            self._abort("the sandbox does not answer any more; log in again.")

    def _tell_of(self, number: int) -> Callable[[str, int], None]:
        def tell(what: str, value: int) -> None:
            if what == "close":
                self._running.pop(number, None)
            self._tell({"do": what, "number": number, "signal": value})

        return tell

    # --- from the usher ---

    def _heard(self) -> None:
        while True:
            try:
                text, fds, _, _ = socket.recv_fds(self._channel, MESSAGE, FDS, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                text, fds = b"", []
            if not text:
                self._over()
                return
            self._take(json.loads(text), fds)

    def _take(self, message: dict[str, Any], fds: list[int]) -> None:
        if "started" in message:
            self._started(message["started"], fds)
        elif "unstarted" in message:
            self._answer(message["unstarted"], _unstarted(message["errno"]))
        elif "ended" in message:
            process = self._running.get(message["ended"])
            if process is not None:
                process.ended(_outcome(message))
        elif "failed" in message:
            self._failure = remedy(message["failed"])

    def _started(self, number: int, fds: list[int]) -> None:
        answer, terminal = self._starting.get(number, (None, False))
        if answer is None or answer.done():
            for fd in fds:
                os.close(fd)  # nobody waits for it any more, and the usher has been told
            return
        process = self._running[number] = LocalProcess(fds, terminal, self._tell_of(number))
        answer.set_result(process)

    def _answer(self, number: int, error: Exception) -> None:
        answer, _ = self._starting.get(number, (None, False))
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def _abort(self, reason: str) -> None:
        """End it from this side; the usher kills what is left as soon as it sees its socket closed."""
        self._failure = self._failure or reason
        self._over()

    def _over(self) -> None:
        """Its usher has gone, and with it every program."""
        if self.gone.is_set():
            return
        self.gone.set()
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        self._failure = self._failure or "the sandbox has ended; log in again for a new one."
        for number in list(self._starting):
            self._answer(number, StartFailed(self._failure))
        for process in list(self._running.values()):
            process.ended(Lost("the sandbox ended before its program did."))
        self._forget(self)


def _outcome(message: dict[str, Any]) -> Outcome:
    status = message["status"]
    if not message["signalled"]:
        return Exited(status)
    try:
        name = signal.Signals(status).name.removeprefix("SIG")
    except ValueError:
        name = f"RT{status - signal.SIGRTMIN}" if status >= signal.SIGRTMIN else str(status)
    return Signalled(name, message["core"])


def _unstarted(number: int) -> StartFailed:
    """What the kernel's refusal to start a program means to the user."""
    if number in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOEXEC, errno.ELOOP):
        missing = ProgramMissing(f"the sandbox cannot start that program: {os.strerror(number)}.")
        missing.status = 127 if number in (errno.ENOENT, errno.ENOTDIR) else 126
        return missing
    if number in (errno.EAGAIN, errno.EMFILE, errno.ENOSPC):
        return StartFailed("the sandbox has reached its limit of processes or terminals; end some of them first.")
    return StartFailed(f"the sandbox cannot start a program: {os.strerror(number)}.")
