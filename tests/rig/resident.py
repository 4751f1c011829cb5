"""The resident's program, run by a python3 of this machine, and what attaches to it past a gateway."""

from __future__ import annotations

import array
import base64
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sshgate.hold.frames import HEAD, HELLO, OFFSET, Kind
from sshgate.hold.line import LONGEST, SOURCE
from sshgate.sandbox.framing import FrameReader

# It looks for idle shells more often than usual.
MAIN = (
    "import os,sys;s=open(0,'rb').read();g={'__name__':'x'};exec(compile(s,'resident','exec'),g);"
    "g['LOOK_SECONDS']=%r;g['main'](%r,%d)"
)

USUAL = {"how": "new", "from": "here", "size": [80, 24, 0, 0], "program": "p", "shell": "", "detached": 600, "most": 20}


class Attached:
    """One attachment: two pipes whose far ends the resident has."""

    def __init__(self, directory: Path, greeting: bytes = HELLO) -> None:
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.control.connect(str(directory / "socket"))
        theirs_in, self.to = os.pipe()
        self.come, theirs_out = os.pipe()
        rights = array.array("i", [theirs_in, theirs_out])
        self.control.sendmsg([b"p"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        os.close(theirs_in)
        os.close(theirs_out)
        assert os.read(self.come, 64) == greeting
        self._reader = FrameReader(HEAD, LONGEST)
        self.frames: list[tuple[int, bytes]] = []
        self.typed = 0
        self.ended = False

    def send(self, kind: int, payload: bytes = b"") -> None:
        os.write(self.to, HEAD.pack(kind, len(payload)) + payload)

    def join(self, script: str = "exec cat", **wish: Any) -> dict[str, Any]:
        own = {"client": os.urandom(4).hex(), "script": base64.b64encode(b"exec 3<&-;" + script.encode()).decode()}
        self.send(Kind.JOIN, json.dumps({**USUAL, **own, **wish}).encode())
        answer: dict[str, Any] = json.loads(self.until(Kind.JOINED))
        return answer

    def type(self, data: bytes) -> None:
        self.send(Kind.INPUT, OFFSET.pack(self.typed) + data)
        self.typed += len(data)

    def take(self, seconds: float = 0.2) -> None:
        """Take what comes within this time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and select.select([self.come], [], [], left)[0]:
            data = os.read(self.come, 1 << 16)
            if not data:
                self.ended = True
                return
            self.frames += self._reader.feed(data)

    def until(self, kind: int, matches: Callable[[bytes], bool] = lambda payload: True) -> bytes:
        for _ in range(150):
            for found, payload in self.frames:
                if found == kind and matches(payload):
                    return payload
            assert not self.ended, self.frames
            self.take(0.1)
        raise AssertionError(f"no {kind}, but {self.frames[-5:]}")

    @property
    def output(self) -> bytes:
        return b"".join(payload[OFFSET.size :] for kind, payload in self.frames if kind in (Kind.OUTPUT, Kind.SCREEN))

    def close(self) -> None:
        os.close(self.to)
        os.close(self.come)
        self.control.close()


@contextmanager
def running(place: Path, looks: float = 0.4) -> Iterator[subprocess.Popen[bytes]]:
    """Run a resident whose socket is in ``place``, and which looks around every ``looks`` seconds, during the body."""
    ready, theirs = os.pipe()
    command = [sys.executable, "-IS", "-c", MAIN % (looks, str(place), theirs)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[theirs]) as process:
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(SOURCE)
        process.stdin.close()
        assert os.read(ready, 1) == b""
        os.close(ready)
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def attaching(resident: subprocess.Popen[bytes], place: Path) -> Iterator[Callable[[], Attached]]:
    """Yield what attaches once more. Nothing of that may have ended the resident."""
    made: list[Attached] = []

    def one() -> Attached:
        made.append(Attached(place))
        return made[-1]

    yield one
    assert resident.poll() is None
    for each in made:
        each.close()
