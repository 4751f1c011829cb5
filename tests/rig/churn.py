"""Clients of every kind at one gateway, at once and at random: what end well, and what end badly."""

from __future__ import annotations

import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.rig.ssh import Ssh
from tests.rig.terminal import OnTerminal

USERS_AT_ONCE = 4


class Churn:
    """Clients of every kind at one gateway."""

    def __init__(self, ssh: Ssh, stranger: Ssh, seed: int, outages: Callable[[], int] = lambda: 0) -> None:
        """``outages`` counts, odd while one goes on: who meets one may be refused or cut, and must not hang."""
        self.done: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        self._outages = outages
        self.errors: list[str] = []
        self._ssh = ssh
        self._stranger = stranger
        self._seed = seed

    def run(self, seconds: float) -> None:
        """Returns when every client has ended. Raises ``AssertionError`` with the first thing that went wrong."""
        until_then = time.monotonic() + seconds
        workers = [threading.Thread(target=self._work, args=(n, until_then)) for n in range(USERS_AT_ONCE)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not self.errors, self.errors[0]

    def _work(self, number: int, until_then: float) -> None:
        choose = random.Random(self._seed + number)
        kinds = (self._command, self._upload, self._killed, self._hangup, self._refused, self._scanner)
        while time.monotonic() < until_then and not self.errors:
            kind = choose.choice(kinds)
            before = self._outages()
            try:
                kind()
                self.done[kind.__name__] += 1
            except Exception as error:
                met = before % 2 or self._outages() != before
                if met and isinstance(error, AssertionError):
                    self.cut[kind.__name__] += 1
                else:
                    self.errors.append(f"{kind.__name__}: {error!r}")

    def _command(self) -> None:
        ended = self._ssh.run("echo in; exit 5")
        assert (ended.status, ended.out) == (5, b"in\n"), ended.both

    def _upload(self) -> None:
        ended = self._ssh.run("wc -c", stdin=bytes(200_000))
        assert ended.out.split() == [b"200000"], ended.both

    def _killed(self) -> None:
        client = self._ssh.start("echo up; exec sleep 1000")
        try:
            assert client.stdout
            assert client.stdout.readline() == b"up\n"
        finally:
            client.send_signal(signal.SIGKILL)
            client.communicate()

    def _hangup(self) -> None:
        with OnTerminal(self._ssh.argv(options=("-tt",))) as terminal:
            terminal.enter("echo u''p")
            terminal.expect(rb"up\r\n")

    def _refused(self) -> None:
        assert self._stranger.run("true").status == 255

    def _scanner(self) -> None:
        with socket.create_connection(("127.0.0.1", self._ssh.port), 10) as scanner:
            scanner.recv(64)
