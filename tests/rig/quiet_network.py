"""A network of the browser's own, in which nothing changes.

Chromium breaks off every request (ERR_NETWORK_CHANGED) when an interface comes or goes on its machine, as each pod of a
test cluster does; no option keeps it from that.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.rig.relay import Relay

CLONE_NEWNET = 0x40000000


class QuietNetwork:
    """A network namespace with nothing but loopback; ports of this machine's loopback are opened in it one by one."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._stack = ExitStack()
        self._ports: set[int] = set()
        self._holder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> QuietNetwork:
        if os.geteuid() != 0:
            return self  # no right to make one: the browser shares this machine's
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && read end"], stdin=-1, stdout=-1
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"up\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if self._holder is not None:
            self._holder.communicate(b"\n")

    def program(self, path: Path) -> Path:
        """The program, to be run in here."""
        if self._holder is None:
            return path
        wrapper = self._place / path.name
        wrapper.write_text(f'#!/bin/sh\nexec nsenter --net={self._file} {path} "$@"\n')
        wrapper.chmod(0o700)
        return wrapper

    def open(self, port: int) -> None:
        """Make the port of this machine's loopback the same port in here."""
        if self._holder is None or port in self._ports:
            return
        self._ports.add(port)
        self._stack.enter_context(Relay(port, self._listener(port)))

    @property
    def _file(self) -> str:
        assert self._holder is not None
        return f"/proc/{self._holder.pid}/ns/net"

    def _listener(self, port: int) -> socket.socket:
        made: list[socket.socket] = []

        def make() -> None:
            # A socket stays in the namespace of the thread that made it.
            with open(self._file, "rb") as namespace:  # noqa: PTH123
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server(("127.0.0.1", port)))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        assert made, f"port {port} cannot be had in the browser's network"
        return made[0]
