"""One attack: a flood in a process of its own, a typist beside it, and what both saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fairness.typist import Typist, processor_seconds

# What this layer is about: the echo of somebody else's key, and memory.
ECHO_LIMIT = 0.25
MEMORY_LIMIT = 64 << 20
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Seen:
    """What came of it."""

    slowest: float
    grown: int
    used: float
    """Seconds of processor that the gateway used meanwhile."""
    report: dict[str, Any]
    """What the flood says of itself."""


def attack(typist: Typist, *argv: object, module: str = "tests.fairness.flood") -> Seen:
    """Run the flood ``argv`` of ``module`` to its end."""
    gateway = typist.gateway
    command = [sys.executable, "-m", module, *map(str, argv)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as flood:
        assert flood.stdin is not None
        assert flood.stdout is not None
        try:
            assert flood.stdout.readline() == "ready\n", f"the flood could not begin:\n{gateway.log()[-2000:]}"
            before, used = gateway.memory, processor_seconds(gateway.pid)
            most = Most(gateway.pid)
            flood.stdin.write("go\n")
            flood.stdin.flush()
            echoes = typist.type_while(lambda: flood.poll() is None)
            output = flood.stdout.read()
            return Seen(max(echoes), most.end() - before, processor_seconds(gateway.pid) - used, json.loads(output))
        finally:
            flood.kill()


class Most:
    """Looks at a process's memory every few milliseconds."""

    def __init__(self, pid: int) -> None:
        self._statm = Path(f"/proc/{pid}/statm")
        self._most = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.is_set():
            self._most = max(self._most, int(self._statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
            time.sleep(0.01)

    def end(self) -> int:
        """The most that it was."""
        self._ended.set()
        self._thread.join()
        return self._most


def check(seen: Seen) -> None:
    """Nobody else noticed."""
    print(seen)  # shown with a failure
    assert seen.slowest <= ECHO_LIMIT
    assert seen.grown <= MEMORY_LIMIT
