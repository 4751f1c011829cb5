"""A terminal that draws: tmux, asked for what a person would see."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.rig.ssh import environment
from tests.rig.waiting import until


class Screen:
    """One window of a tmux server of its own, in which ``argv`` runs."""

    def __init__(self, place: Path, argv: Sequence[str | bytes], columns: int = 80, rows: int = 24) -> None:
        self._tmux = ["tmux", "-S", str(place / "tmux"), "-f", "/dev/null"]
        command = shlex.join(word if isinstance(word, str) else word.decode() for word in argv)
        size = ["-x", str(columns), "-y", str(rows)]
        self._do("new-session", "-d", *size, f"{command}; exec sleep 600", ";", "set", "status", "off")

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do("kill-server")

    def press(self, *keys: str) -> None:
        """Keys by tmux's names: ``Enter``, ``C-c``, ``Escape``, or single characters."""
        self._do("send-keys", *keys)

    def enter(self, line: str) -> None:
        """Type a line and the return key."""
        self._do("send-keys", "-l", line)
        self.press("Enter")

    def resize(self, columns: int, rows: int) -> None:
        self._do("resize-window", "-x", str(columns), "-y", str(rows))

    def lines(self) -> list[str]:
        """What is on the screen now, line by line, without blanks at their ends."""
        return self._do("capture-pane", "-p").split("\n")

    def shows(self, text: str, limit: float = 20.0) -> list[str]:
        """Wait until ``text`` is on the screen; the screen's lines then."""
        until(lambda: any(text in line for line in self.lines()), limit, f"{text!r} on the screen\n{self}")
        return self.lines()

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _do(self, *words: str) -> str:
        done = subprocess.run(
            [*self._tmux, *words], capture_output=True, text=True, check=True, timeout=20, env=environment(TERM="xterm")
        )
        return done.stdout
