"""The mark by which the launcher tells the end of a program, found in both its outputs and taken out. Pure."""

from __future__ import annotations

from sshgate.streams import STDERR, STDOUT


class EndMark:
    """Looks for ``mark`` in what comes on stdout and stderr; neither is whole before it was seen there.

    Kubernetes tells success also for a connection that broke off somewhere on the way, and megabytes may be under
    way then. What stands behind the program's own last byte on the same pipe proves that all of it has come.
    """

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self._held = {STDOUT: b"", STDERR: b""}

    def __repr__(self) -> str:
        return f"<EndMark {'seen' if self.seen else f'awaited on {sorted(self._held)}'}>"

    @property
    def seen(self) -> bool:
        """Whether both outputs have come to their end."""
        return not self._held

    def without(self, stream: int, data: bytes) -> bytes:
        """What of ``data`` is output; a possible beginning of the mark is held until the next call."""
        held = self._held.get(stream)
        if held is None:
            return data
        if held:
            data = held + data
        before, found, after = data.partition(self.mark)
        if found:
            del self._held[stream]
            return before + after
        start = data.rfind(self.mark[:1], -len(self.mark))
        if start < 0 or not self.mark.startswith(data[start:]):
            self._held[stream] = b""
            return data
        self._held[stream] = data[start:]
        return data[:start]

    def held(self) -> list[tuple[int, bytes]]:
        """What was held and will not become a mark any more."""
        return list(self._held.items())
