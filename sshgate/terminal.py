"""Terminal values: size, type and modes, as RFC 4254 sections 6.2, 6.7 and 8 define them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Kubernetes carries a size as two uint16 (remotecommand channel 4); the kernel's winsize is the same.
LARGEST = 65_535


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """Width and height of a terminal in character cells; pixel sizes are 0 when unknown."""

    columns: int = 80
    rows: int = 24
    pixel_width: int = 0
    pixel_height: int = 0

    @classmethod
    def of(cls, columns: int, rows: int, pixel_width: int = 0, pixel_height: int = 0) -> TerminalSize:
        """The size a client asked for, made safe: 0 means unknown and reads as 80x24, above 65,535 is cut."""
        return cls(
            min(columns, LARGEST) if columns > 0 else 80,
            min(rows, LARGEST) if rows > 0 else 24,
            min(max(pixel_width, 0), LARGEST),
            min(max(pixel_height, 0), LARGEST),
        )

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}"


@dataclass(frozen=True, slots=True)
class Terminal:
    """What a client asks of its pseudo-terminal.

    ``modes`` maps RFC 4254 section 8 opcodes to values, as the client sent them.
    """

    term: str = "xterm"
    size: TerminalSize = TerminalSize()
    modes: Mapping[int, int] = field(default_factory=dict)
