"""The mark by which the launcher tells the end of a program, found in both its outputs and taken out. Pure."""

from __future__ import annotations

from sshgate.sandbox.launcher import KILLED
from sshgate.stream.interfaces import STDERR, STDOUT


class EndMark:
    """Looks for ``mark`` in what comes on stdout and stderr; neither is whole before it was seen there.

    Kubernetes tells success also for a connection that broke off somewhere on the way, and megabytes may be under
    way then. What stands behind the program's own last byte on the same pipe proves that all of it has come.
    The first byte of the mark must not be found in it again.

    A mark may come in pieces, so what looks like its beginning is held; but a program that waits for an answer says
    nothing further, and its client waits for what is held. Hence ``let_go``.

    Behind the mark on stderr ``KILLED`` may stand.
    """

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self.torn = False
        """Whether a beginning of the mark was let go: the output holds what no program said."""
        self.killed = False
        """Whether the launcher knows that a signal ended the program."""
        self._just_seen = False
        self._held = {STDOUT: b"", STDERR: b""}
        self._let_go = {STDOUT: b"", STDERR: b""}

    def __repr__(self) -> str:
        return f"<EndMark {'seen' if self.complete else f'awaited on {sorted(self._held)}'}>"

    @property
    def complete(self) -> bool:
        """Whether both outputs have come to their end."""
        return not self._held

    def holds(self, stream: int) -> bool:
        """Whether output of ``stream`` is held that may be let go.

        The launcher prints on stderr first: what stdout says after the mark there is no program's.
        """
        return STDERR in self._held and bool(self._held.get(stream))

    def without(self, stream: int, data: bytes) -> bytes:
        """What of ``data`` is output; a possible beginning of the mark is held."""
        held = self._held.get(stream)
        if held is None:
            return self._behind(stream, data)
        gone = self._let_go[stream]
        if held or gone:
            data = gone + held + data
        before, found, after = data.partition(self.mark)
        if found:
            del self._held[stream]
            self.torn |= len(before) < len(gone)
            self._just_seen |= stream == STDERR
            return before[len(gone) :] + self._behind(stream, after)
        start = data.rfind(self.mark[:1], -len(self.mark))
        if start < 0 or not self.mark.startswith(data[start:]):
            start = len(data)
        self._let_go[stream] = data[start : len(gone)]
        self._held[stream] = data[max(start, len(gone)) :]
        return data[len(gone) : max(start, len(gone))]

    def _behind(self, stream: int, data: bytes) -> bytes:
        if data and stream == STDERR and self._just_seen:
            self._just_seen = False
            self.killed = data.startswith(KILLED)
            data = data.removeprefix(KILLED)
        return data

    def let_go(self, stream: int) -> bytes:
        """What is held: nothing has followed it, so it is output. Should the rest of the mark follow yet, it counts."""
        if not self.holds(stream):
            return b""
        data, self._held[stream] = self._held[stream], b""
        self._let_go[stream] += data
        return data

    def held(self) -> list[tuple[int, bytes]]:
        """What was held and will not become a mark any more."""
        return list(self._held.items())
