"""Copies if the sandbox has tar but no Python.

Into the sandbox, the archive is unpacked in a temporary directory, verified by one checksum over all contents, and then
moved into place. Out of it, tar's exit status and a checksum follow the archive.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import tempfile
from collections.abc import Callable

from sshgate.transfer import remote_script, sh_peer
from sshgate.transfer.destination import WriteOptions
from sshgate.transfer.display import Display
from sshgate.transfer.partial_file import display_path
from sshgate.transfer.receiver import Receiver
from sshgate.transfer.records import CHUNK, Broken, End, Enter, File, Hardlink, Leave, Problem, ProtocolError
from sshgate.transfer.remote_shell import RemoteFailure, RemoteShell, words
from sshgate.transfer.sender import ReadOptions, landing_name, walk
from sshgate.transfer.tarball import Packer, Wire, unpacked

NEEDED = frozenset(("tar", "sha256sum", "xargs", "mv", "mkdir", "stat", "tee"))
# Bytes of file names that are kept in memory. More go into a temporary file.
_NAMES = 1024 * 1024
# Names per command line, so that it does not exceed the limit of any system.
_BATCH = 100


async def is_gnu(shell: RemoteShell) -> bool:
    """Whether the sandbox has GNU tar, which supports extended headers and holes. Raises ``FarFailure``."""
    await shell.write(
        b"case $(tar --version 2>/dev/null) in *GNU*) printf '\\001sshgate-cp gnu\\002';; "
        b"*) printf '\\001sshgate-cp other\\002';;esac"
    )
    gnu = await shell.agent(b"gnu")
    await shell.programs()
    return gnu


async def send(
    shell: RemoteShell, sources: list[bytes], destination: bytes, display: Display, wants_totals: bool
) -> None:
    """Copy ``sources`` into the sandbox.

    Args:
        wants_totals: Count the files first, for the progress bar.

    Raises:
        FarFailure: The far end failed, or a source changed meanwhile.
        ProtocolError: An answer of the far end is not valid.
    """
    gnu = await is_gnu(shell)
    script = remote_script.begin(sources, destination, os.urandom(8).hex())
    await shell.write(
        remote_script.functions() + script + b";unpack " + words(landing_name(sources[0]), b"gnu" if gnu else b"other")
    )
    answer = asyncio.create_task(remote_script.verdict(shell, display))
    sending = asyncio.create_task(_sending(shell, sources, gnu, display, wants_totals))
    try:
        await asyncio.wait({answer, sending}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            await sending
        await answer
        end = await sending
        display.entries, display.size = end.entries, end.size
    finally:
        for task in (answer, sending):
            task.cancel()
        await asyncio.gather(answer, sending, return_exceptions=True)


async def _sending(shell: RemoteShell, sources: list[bytes], gnu: bool, display: Display, wants_totals: bool) -> End:
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
    """Copy ``sources`` out of the sandbox. Raises ``FarFailure``, ``ProtocolError`` or ``Stopped``."""
    gnu = await is_gnu(shell)
    await shell.write(remote_script.functions())
    await shell.programs()
    landing = Receiver(writing, display.fail, lambda: os.urandom(8).hex())
    bridge = _Blocking(shell)
    try:
        for source in sources:
            head, name = remote_script.parted(source)
            if await _is_beyond(shell, head, name):
                await sh_peer.fetch_one(shell, source, landing, display)
                continue
            await shell.write(b"(pack %s %s ./%s)||exit 1" % (b"gnu" if gnu else b"other", head, name))
            empty: list[bytes] = []
            await bridge.run(lambda source=source, empty=empty: _land(bridge, source, landing, display, empty))  # type: ignore[misc]
            await shell.programs()
            await _check(shell, source, empty, landing, display)
        landing.take(End(landing.entries, landing.size))
    finally:
        landing.close()


async def _is_beyond(shell: RemoteShell, head: bytes, name: bytes) -> bool:
    """Whether a source has to be copied by the shell: tar trusts sizes, which are wrong in /proc and /sys."""
    mark = b"printf '\\001sshgate-cp %s\\002'"
    await shell.write(b"if (beyond_tar %s %s);then %s;else %s;fi" % (head, name, mark % b"beyond", mark % b"plain"))
    beyond = await shell.agent(b"beyond")
    return await shell.programs() >= sh_peer.NEEDED_TO_FETCH and beyond


async def _check(shell: RemoteShell, source: bytes, empty: list[bytes], landing: Receiver, display: Display) -> None:
    """Withdraw and report files that tar took for empty although they have content.

    Files of the kernel and of some FUSE file systems report a size of 0.

    Args:
        empty: The paths of all files without content in the archive.
    """
    head, _ = remote_script.parted(source)
    top = landing_name(source)
    prefix = top + b"/" if source.endswith(b"/") and top != b"." else b""
    while empty:
        batch, empty = empty[:_BATCH], empty[_BATCH:]
        await shell.write(b"(empty %s %s)" % (head, words(*(b"./" + path for path in batch))))
        async for record in sh_peer.records(sh_peer.Input(shell), b""):
            if not isinstance(record, Problem) or record.path not in batch:
                raise ProtocolError("it sent something else than was asked for")
            batch.remove(record.path)
            landing.withdraw(prefix + record.path)
            display.fail(*record)
            display.entries = landing.entries
        await shell.programs()


def _land(bridge: _Blocking, source: bytes, landing: Receiver, display: Display, empty: list[bytes]) -> None:
    """Unpack one archive, in a thread as ``tarfile`` blocks. Appends the paths of all empty files to ``empty``."""
    wire = Wire(bridge.more)
    if wire.peek() == b"S":
        raise RemoteFailure(f"in the sandbox: {display_path(wire.sentence())}")
    name = landing_name(source)
    link = source.endswith(b"/") and name != b"."
    trail: list[bytes] = []
    for record in unpacked(wire, contents=name == b"." or link):
        if isinstance(record, Problem):
            display.fail(*record)
            continue
        if isinstance(record, Enter):
            trail.append(record.name)
        elif isinstance(record, Leave):
            trail.pop()
        elif isinstance(record, File) and not record.size:
            empty.append(b"/".join([*(one for one in trail if one != b"."), record.name]))
        if link and isinstance(record, Enter) and record.name == b".":
            record = record._replace(name=name)
        elif link and isinstance(record, Hardlink):
            record = record._replace(target=name + b"/" + record.target)
        display.show(record)
        landing.take(record)
        display.entries, display.size = landing.entries, landing.size
    status, digest, sockets = wire.trailer()
    if digest != wire.digest.hexdigest().encode():
        raise ProtocolError("the checksum of its archive does not match")
    if status:
        raise RemoteFailure(f"tar in the sandbox ended with status {status}: some files were not copied, or changed.")
    if sockets:
        display.fail(source, "holds sockets, which cannot be copied")
    bridge.give_back(wire.rest())


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
