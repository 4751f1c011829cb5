"""Finds and removes the mark that the launcher prints at the end of a program's output. Pure."""

from __future__ import annotations

from sshgate.sandbox.launcher import KILLED
from sshgate.stream.interfaces import STDERR, STDOUT


class EndMark:
    """Searches stdout and stderr for ``mark``; a stream is complete once its mark was found.

    Kubernetes reports success even if the connection broke with megabytes of output in flight. The mark follows the
    program's last byte on the same pipe, so it proves that all output has arrived. Its first byte must not occur in
    it a second time.

    A mark may arrive in pieces, so a possible beginning of it is held back. If nothing follows, it was output, for
    which the client may be waiting (a prompt): the caller then releases it with ``let_go``.

    After the mark on stderr, ``KILLED`` may follow.
    """

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self.leaked = False
        """Whether part of the mark was passed on as output, which is therefore wrong."""
        self.killed = False
        """Whether the launcher reported that a signal ended the program."""
        self._just_seen = False
        self._held = {STDOUT: b"", STDERR: b""}
        self._let_go = {STDOUT: b"", STDERR: b""}

    @property
    def complete(self) -> bool:
        """Whether the mark was found on both streams."""
        return not self._held

    def holds(self, stream: int) -> bool:
        """Whether data of ``stream`` is held back that may be released.

        False once stderr has its mark: the launcher prints that one first, so what stdout still holds is its mark.
        """
        return STDERR in self._held and bool(self._held.get(stream))

    def strip(self, stream: int, data: bytes) -> bytes:
        """Return the output in ``data``, without the mark. A possible beginning of the mark is held back."""
        held = self._held.get(stream)
        if held is None:
            return self._behind(stream, data)
        gone = self._let_go[stream]
        if held or gone:
            data = gone + held + data
        before, found, after = data.partition(self.mark)
        if found:
            del self._held[stream]
            self.leaked |= len(before) < len(gone)
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

    def release(self, stream: int) -> bytes:
        """Release what is held back, as output. If the rest of the mark follows, it still counts; see ``torn``."""
        if not self.holds(stream):
            return b""
        data, self._held[stream] = self._held[stream], b""
        self._let_go[stream] += data
        return data

    def pending(self) -> list[tuple[int, bytes]]:
        """What is still held back on each stream, for the end of the connection."""
        return list(self._held.items())
