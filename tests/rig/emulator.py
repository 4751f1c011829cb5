"""A client on a terminal that draws as xterm.js does, without a page, and can be asked what it shows."""

from __future__ import annotations

import base64
import json
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.rig.terminal import OnTerminal

PACKAGE = Path(__file__).parents[2] / "webshim/page/node_modules/@xterm/headless"
# Seconds without output after which a screen counts as drawn.
STILL_SECONDS = 0.4


class Emulator:
    """A terminal of this size."""

    def __init__(self, columns: int, rows: int) -> None:
        if not PACKAGE.exists():
            pytest.skip("no @xterm/headless: run scripts/page --check")
        script = str(Path(__file__).with_suffix(".cjs"))
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(["node", script, PACKAGE, str(columns), str(rows)], stdin=pipe, stdout=pipe)

    def feed(self, data: bytes) -> bytes:
        """Show output; returns what the terminal types by itself."""
        return base64.b64decode(self._ask(write=base64.b64encode(data).decode())["typed"])

    def resize(self, columns: int, rows: int) -> None:
        """Change the window."""
        self._ask(size=[columns, rows])

    def screen(self) -> dict[str, Any]:
        """What is shown: lines with their looks, cursor, modes, title, and the lines above."""
        return self._ask()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, **wish: Any) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(wish).encode() + b"\n")
        stdin.flush()
        answer: dict[str, Any] = json.loads(stdout.readline())
        return answer


class Drawn(OnTerminal):
    """``OnTerminal`` with an emulator on it, whose answers are typed."""

    def __init__(self, argv: Sequence[str | bytes], columns: int = 80, rows: int = 24) -> None:
        self.emulator = Emulator(columns, rows)
        self._began = False
        super().__init__(argv, columns, rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.emulator.close()

    def resize(self, columns: int, rows: int) -> None:
        self.emulator.resize(columns, rows)
        super().resize(columns, rows)

    def drawn(self, limit: float = 20.0) -> dict[str, Any]:
        """What is shown once nothing comes any more."""
        deadline = time.monotonic() + limit
        # A login takes long on a busy machine.
        while select.select([self._ours], [], [], STILL_SECONDS if self._began else limit)[0] and self._take(0):
            assert time.monotonic() < deadline, "this screen never stands still"
        shown = self.emulator.screen()
        # What was above before the client began is blank.
        while shown["history"] and not shown["history"][0]:
            shown["history"].pop(0)
        return shown

    def _take(self, limit: float) -> bool:
        before, self.output = self.output, b""
        alive = super()._take(limit)
        new, self.output = self.output, before + self.output
        self._began |= bool(new)
        if typed := self.emulator.feed(new) if new else b"":
            self.type(typed)
        return alive
