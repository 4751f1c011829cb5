"""The output of a copy: a progress bar on a terminal and a sentence for each failure, or one JSON object."""

from __future__ import annotations

import json
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sshgate.transfer.partial_file import display_path
from sshgate.transfer.records import Chunk, File, Hole, Record, Totals, Whole

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# Failures that are kept and shown. A hostile far end can report any number.
_NAMED = 1000


class Display:
    """Collects the failures of a copy and shows its progress. A context manager: the bar ends with it.

    Args:
        bar: Draw a progress bar on stderr.
        as_json: Print no sentences for failures, but one JSON object on stdout at the end.
    """

    def __init__(self, *, bar: bool, as_json: bool) -> None:
        self.failures: list[tuple[str, str]] = []
        self.failed = 0
        self.entries = 0
        self.size = 0
        self._json = as_json
        self.wants_totals = bar
        """Whether the sender should count the files first, for the progress bar."""
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def show(self, record: Record) -> None:
        """Advance the bar by one record of the copy.

        The first one starts the bar: before it, ssh may ask for a password or a host key on the same terminal.
        """
        if not self.wants_totals:
            return
        if self._progress is None:
            self._progress = _bar()
            self._task = self._progress.add_task("", total=None)
            self._progress.start()
        progress, task = self._progress, self._task
        assert task is not None
        if isinstance(record, Chunk):
            progress.advance(task, len(record.content))
        elif isinstance(record, Hole):
            progress.advance(task, record.length)
        elif isinstance(record, File):
            progress.update(task, description=display_path(record.name)[:40], advance=record.offset)
        elif isinstance(record, Whole):
            progress.update(task, description=display_path(record.name)[:40], advance=len(record.content))
        elif isinstance(record, Totals):
            progress.update(task, total=max(record.size, 1))

    def fail(self, path: bytes, reason: str) -> None:
        """Report that an entry was not copied. ``reason`` is a clause, such as ``is a FIFO``. Both are escaped."""
        self.failed += 1
        if self.failed <= _NAMED:
            failure = display_path(path), display_path(reason.encode("utf-8", "surrogateescape"))
            self.failures.append(failure)
            if not self._json:
                self.say(f"{failure[0]}: {failure[1]}.")
        elif self.failed == _NAMED + 1 and not self._json:
            self.say("further failures are only counted.")

    def say(self, sentence: str) -> None:
        """Print one line on stderr, above the bar."""
        if self._progress is not None:
            self._progress.console.print(f"sshgate: {sentence}", markup=False, highlight=False, soft_wrap=True)
        else:
            print(f"sshgate: {sentence}", file=sys.stderr)

    def finish(self, error: str | None, seconds: float) -> int:
        """Print the result. Returns the exit status: 0 if everything was copied, else 1.

        Args:
            error: A sentence if the copy failed as a whole.
            seconds: The duration of the copy.
        """
        ok = error is None and self.failed == 0
        if self._json:
            result: dict[str, Any] = {
                "ok": ok,
                "entries": self.entries,
                "bytes": self.size,
                "seconds": round(seconds, 3),
                "failed": self.failed,
                "failures": [{"path": path, "reason": reason} for path, reason in self.failures],
                "error": error,
            }
            print(json.dumps(result))
        elif error is not None:
            self.say(error)
        elif self.failed:
            self.say(f"{self.entries:,} copied, {self.failed:,} not copied.")
        return 0 if ok else 1


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.text import Text

    class Name(TextColumn):
        def render(self, task: Any) -> Text:
            return Text(task.description)

    return Progress(
        Name(""), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
