"""Draws as programs made with Ink do: below what it has printed, a frame that is drawn again and again in its place.

Run in a sandbox with the number of frames. Each is one synchronized update: the cursor goes up over the last one, line
by line, and the new one is written. Raw mode, a hidden cursor, bracketed paste, focus reports and kitty's keys are on.
With ``clears`` a change of the width clears the terminal, and everything is written again, as Claude Code does.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import tty

BEGIN = "\x1b[?25l\x1b[?2004h\x1b[?1004h\x1b[>1u\x1b[?2031h\x1b[c\x1b[>0q\x1b[?u"


class Program:
    """Its printed lines, its frame, and what was typed."""

    def __init__(self, frames: int, clears: bool) -> None:
        self.frames = frames
        self.clears = clears
        self.number = 0
        self.typed = ""
        self.printed: list[str] = []
        self.height = 0
        self.width = os.get_terminal_size(0).columns

    def frame(self) -> list[str]:
        """The lines of the frame now."""
        inner = self.width - 4
        todo = [f"\x1b[3{2 + n % 3}m●\x1b[39m step {n + 1} of this plan" for n in range(6)]
        return [
            f"\x1b[1m✻ Working…\x1b[22m \x1b[2m({self.number} frames)\x1b[22m",
            *todo,
            "╭" + "─" * (self.width - 2) + "╮",
            f"│ {('> ' + self.typed)[:inner]:{inner}} │",
            "╰" + "─" * (self.width - 2) + "╯",
        ]

    def draw(self, *more: str) -> None:
        """Print lines above, and the frame again."""
        out = "\x1b[?2026h" + "\x1b[2K\x1b[1A" * (self.height - 1) + ("\x1b[2K\x1b[G" if self.height else "")
        self.printed += more
        lines = self.frame()
        out += "".join(line + "\r\n" for line in more) + "\r\n".join(lines) + "\x1b[?2026l"
        self.height = len(lines)
        os.write(1, out.encode())

    def resized(self) -> None:
        """Draw for the new width."""
        width, self.width = self.width, os.get_terminal_size(0).columns
        if self.clears and width != self.width:
            os.write(1, b"\x1b[2J\x1b[3J\x1b[H" + "".join(line + "\r\n" for line in self.printed).encode())
            self.height = 0
        self.draw()

    def run(self) -> None:
        """Draw all frames, then only what is typed."""
        tty.setraw(0)
        wake, wake_end = os.pipe()
        os.set_blocking(wake_end, False)
        signal.set_wakeup_fd(wake_end)
        signal.signal(signal.SIGWINCH, lambda number, frame: None)
        os.write(1, BEGIN.encode())
        self.draw()
        while True:
            more = self.number < self.frames
            ready = select.select([0, wake], [], [], 0.002 if more else None)[0]
            if wake in ready:
                os.read(wake, 100)
                self.resized()
            if 0 in ready:
                self.typed += "".join(one for one in os.read(0, 100).decode(errors="ignore") if one.isalpha())
                self.draw()
            if more:
                self.number += 1
                self.draw(*([f"\x1b[36m⏺\x1b[39m line {self.number // 10} of the answer"] * (self.number % 10 == 0)))


Program(int(sys.argv[1]), "clears" in sys.argv).run()
