"""Copies if the sandbox has tar but no Python.

Into the sandbox, the archive is unpacked in a temporary directory, verified by one checksum over all contents, and then
moved into place. Out of it, tar's exit status and a checksum follow the archive. ``tar_peer.sh`` is the far end.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable
from importlib import resources

from sshgate.stream.tasks import all_of
from sshgate.transfer.destination import Budget, WriteOptions
from sshgate.transfer.display import Display
from sshgate.transfer.partial_file import display_path
from sshgate.transfer.receiver import Receiver
from sshgate.transfer.records import CHUNK, Broken, End, Enter, File, Hardlink, Leave, Problem, ProtocolError
from sshgate.transfer.remote_shell import RemoteFailure, RemoteShell, describe_end, quote_words
from sshgate.transfer.sender import SAME_NAME, ReadOptions, destination_name, name_sources, walk
from sshgate.transfer.tarball import ArchiveStream, Packer, read_archive

NEEDED = frozenset(("cat", "chmod", "mkdir", "mv", "rm", "sha256sum", "stat", "tar", "tee", "touch", "xargs"))
# Bytes of file names that are kept in memory. More go into a temporary file.
_NAMES = 1024 * 1024
# Names per command line, so that it does not exceed the limit of any system.
_BATCH = 100
# The longest answer of the far end: a sentence or a path.
_LONGEST_ANSWER = 64 * 1024


def _functions() -> bytes:
    """Return the shell functions of ``tar_peer.sh``, without comments and indentation."""
    text = resources.files("sshgate.transfer").joinpath("tar_peer.sh").read_text("ascii")
    return re.sub(r"(?m)^\s*#.*\n|^\s+", "", text).encode()


async def _is_gnu(shell: RemoteShell) -> bool:
    """Whether the sandbox has GNU tar, which supports extended headers and holes. Raises ``RemoteFailure``."""
    await shell.write(
        b"case $(tar --version 2>/dev/null) in *GNU*) printf '\\001sshgate-cp gnu\\002';; "
        b"*) printf '\\001sshgate-cp other\\002';;esac"
    )
    gnu = await shell.wait_for_word(b"gnu")
    await shell.wait_for_programs()
    return gnu


async def send(
    shell: RemoteShell, sources: list[bytes], writing: WriteOptions, display: Display, wants_totals: bool
) -> None:
    """Copy ``sources`` into the sandbox.

    Args:
        wants_totals: Count the files first, for the progress bar.

    Raises:
        RemoteFailure: The far end failed, or a source changed meanwhile.
        ProtocolError: An answer of the far end is not valid.
        Stopped: There is more than may be copied.
    """
    gnu = await _is_gnu(shell)
    name = destination_name(sources[0])
    begin = quote_words(b"begin", writing.destination, name if len(sources) == 1 else b"", os.urandom(8).hex().encode())
    await shell.write(_functions() + begin + b";unpack " + quote_words(name, b"gnu" if gnu else b"other"))

    async def report_problems() -> None:
        async for path, why in _problems(shell):
            display.fail(path.removeprefix(b"./"), why)

    sending = _sending(shell, sources, gnu, Budget(writing), display, wants_totals)
    end, _ = await all_of(sending, report_problems())
    display.entries, display.size = end.entries, end.size


async def _problems(shell: RemoteShell) -> AsyncIterator[tuple[bytes, str]]:
    """Yield the path and the reason of each entry that the far end could not copy, up to its last answer.

    Raises:
        RemoteFailure: The far end stopped the copy or was cut off.
        ProtocolError: An answer is not valid.
    """
    waiting = b""
    while (data := await shell.read()) is not None:
        *answers, waiting = (waiting + data).split(b"\0")
        if len(waiting) > _LONGEST_ANSWER:
            break
        for number, answer in enumerate(answers, 1):
            kind, text = answer[:1], answer[1:]
            if answer == b"D":
                shell.unread(b"\0".join([*answers[number:], waiting]))
                return
            if kind == b"S":
                raise RemoteFailure(f"in the sandbox: {display_path(text)}")
            if kind != b"P":
                raise ProtocolError("it sent something that is not part of a copy")
            why, _, path = text.partition(b"\n")
            yield path, why.decode("utf-8", "replace")
    if waiting:
        raise ProtocolError("it sent something that is not part of a copy")
    raise RemoteFailure(f"{describe_end(await shell.process.wait())} in the middle of the copy, which is not complete.")


async def _sending(
    shell: RemoteShell, sources: list[bytes], gnu: bool, budget: Budget, display: Display, wants_totals: bool
) -> End:
    queue: list[bytes] = []
    size = 0
    end = End(0, 0)
    with tempfile.SpooledTemporaryFile(_NAMES) as names:
        packer = Packer(gnu, names)
        for record in walk(sources, ReadOptions(totals=wants_totals)):
            if isinstance(record, Problem):
                display.fail(*record)
                continue
            if isinstance(record, Broken):
                raise RemoteFailure(f"a file here {record.reason}; nothing was put in place, try again.")
            if isinstance(record, End):
                end = record
            budget.charge_record(record)
            display.show(record)
            for piece in packer.pack(record):
                queue.append(piece)
                size += len(piece)
                if size >= CHUNK:
                    await shell.process.write(b"".join(queue))
                    queue.clear()
                    size = 0
        await shell.process.write(b"".join(queue))
        for piece in packer.finish():
            await shell.process.write(piece)
    await shell.process.write_eof()
    return end


async def fetch(shell: RemoteShell, sources: list[bytes], writing: WriteOptions, display: Display) -> None:
    """Copy ``sources`` out of the sandbox. Raises ``RemoteFailure``, ``ProtocolError`` or ``Stopped``."""
    kind = b"gnu" if await _is_gnu(shell) else b"other"
    await shell.write(_functions())
    await shell.wait_for_programs()
    if not {b"~", b"~/"}.isdisjoint(sources):
        home = await _home(shell)
        sources = [home + source[1:] if source in (b"~", b"~/") else source for source in sources]
    receiver = Receiver(writing, display.fail, lambda: os.urandom(8).hex())
    bridge = _Blocking(shell)
    try:
        for source, top in name_sources(sources):
            if top is None:
                display.fail(source, SAME_NAME)
                continue
            directory, name = _split(source)
            await shell.write(b"(pack %s %s ./%s)||exit 1" % (kind, directory, name))
            empty: list[bytes] = []
            await bridge.run(lambda source=source, empty=empty: _receive(bridge, source, receiver, display, empty))  # type: ignore[misc]
            await shell.wait_for_programs()
            await _check_empty(shell, source, empty, receiver, display)
        receiver.apply(End(receiver.entries, receiver.size))
    finally:
        receiver.close()


async def _home(shell: RemoteShell) -> bytes:
    """Return the path of the home directory, whose last part is its copy's name. Raises as ``fetch``."""
    await shell.write(b"printf '%s\\0' \"$HOME\"")
    answer = b""
    while b"\0" not in answer:
        data = await shell.read()
        if data is None or len(answer) > _LONGEST_ANSWER:
            raise ProtocolError("it does not say where the home directory is")
        answer += data
    home, _, rest = answer.partition(b"\0")
    shell.unread(rest)
    await shell.wait_for_programs()
    return home.rstrip(b"/") or b"/"


def _split(path: bytes) -> tuple[bytes, bytes]:
    """Split a source into its directory and the name to read there, as shell words. A trailing slash follows a link."""
    if path.endswith(b"/") or destination_name(path) == b".":
        return b'"$(home %s)"' % quote_words(path or b"."), quote_words(b".")
    head, slash, last = path.rpartition(b"/")
    return b'"$(home %s)"' % quote_words(head or (b"/" if slash else b".")), quote_words(last)


async def _check_empty(
    shell: RemoteShell, source: bytes, empty: list[bytes], receiver: Receiver, display: Display
) -> None:
    """Withdraw and report files that tar took for empty although they have content.

    Files of the kernel and of some FUSE file systems report a size of 0.

    Args:
        empty: The paths of all files without content in the archive.
    """
    directory, _ = _split(source)
    top = destination_name(source)
    prefix = top + b"/" if source.endswith(b"/") and top != b"." else b""
    while empty:
        batch, empty = empty[:_BATCH], empty[_BATCH:]
        await shell.write(b"(empty %s %s)" % (directory, quote_words(*(b"./" + path for path in batch))))
        async for path, why in _problems(shell):
            if path not in batch:
                raise ProtocolError("it sent something else than was asked for")
            batch.remove(path)
            receiver.withdraw(prefix + path)
            display.fail(path, why)
            display.entries = receiver.entries
        await shell.wait_for_programs()


def _receive(bridge: _Blocking, source: bytes, receiver: Receiver, display: Display, empty: list[bytes]) -> None:
    """Unpack one archive, in a thread as ``tarfile`` blocks. Appends the paths of all empty files to ``empty``."""
    stream = ArchiveStream(bridge.more)
    if stream.peek() == b"P":
        display.fail(source, stream.refusal())
        bridge.give_back(stream.rest())
        return
    name = destination_name(source)
    link = source.endswith(b"/") and name != b"."
    entered: list[bytes] = []
    for record in read_archive(stream, contents=name == b"." or link):
        if isinstance(record, Problem):
            display.fail(*record)
            continue
        if isinstance(record, Enter):
            entered.append(record.name)
        elif isinstance(record, Leave):
            entered.pop()
        elif isinstance(record, File) and not record.size:
            empty.append(b"/".join([*(one for one in entered if one != b"."), record.name]))
        if link and isinstance(record, Enter) and record.name == b".":
            record = record._replace(name=name)
        elif link and isinstance(record, Hardlink):
            record = record._replace(target=name + b"/" + record.target)
        display.show(record)
        receiver.apply(record)
        display.entries, display.size = receiver.entries, receiver.size
    status, digest, sockets = stream.trailer()
    if digest != stream.digest.hexdigest().encode():
        raise ProtocolError("the checksum of its archive does not match")
    if status:
        raise RemoteFailure(
            f"tar in the sandbox ended with status {status}: some files were not copied, or changed meanwhile."
        )
    if sockets:
        display.fail(source, "holds sockets, which cannot be copied")
    bridge.give_back(stream.rest())


class _Blocking:
    """Lets a thread read data that arrives in the event loop, and ends the thread if the copy is cancelled."""

    def __init__(self, shell: RemoteShell) -> None:
        self._shell = shell
        self._loop = asyncio.get_running_loop()
        self._waiting: concurrent.futures.Future[bytes | None] | None = None
        self._over = False

    def more(self) -> bytes:
        """Return the next bytes, ``b""`` at the end. For the thread. Raises ``ProtocolError`` after cancellation."""
        if self._over:
            raise ProtocolError("it was interrupted")
        self._waiting = asyncio.run_coroutine_threadsafe(self._shell.read(), self._loop)
        try:
            return self._waiting.result() or b""
        except concurrent.futures.CancelledError as error:
            raise ProtocolError("it was interrupted") from error

    def give_back(self, data: bytes) -> None:
        """Put back data that was read too far."""
        self._shell.unread(data)

    async def run(self, work: Callable[[], None]) -> None:
        """Run ``work`` in a thread. Cancellation interrupts its next ``more`` and waits until the thread has ended."""
        thread = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            await asyncio.shield(thread)
        except asyncio.CancelledError:
            self._over = True
            while not thread.done():
                if self._waiting is not None:
                    self._waiting.cancel()
                await asyncio.wait({thread}, timeout=0.05)
            if not thread.cancelled():
                thread.exception()
            raise
