"""The far end of a copy if the sandbox has Python: it reads and writes files with the same code as the near end.

``python_peer`` packs this module and the ones that it imports into one program and starts it there (Python 3.8).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator

from sshgate.transfer.destination import WriteOptions
from sshgate.transfer.partial_file import Stopped
from sshgate.transfer.receiver import Receiver
from sshgate.transfer.records import CHUNK, Decoder, End, Have, Offer, Problem, ProtocolError, Record, encode
from sshgate.transfer.sender import ReadOptions, reason, walk

READY = b"\x01sshgate-cp agent\x02"
# The largest pipe without privileges on Linux: its other end can go on while a chunk is hashed and written here.
_PIPE = 1024 * 1024
_F_SETPIPE_SZ = 1031  # named since Python 3.10


def main(task: str, *arguments: str) -> int:
    """Run one copy over stdin and stdout. Returns the exit status.

    ``send RESUME TOTALS SOURCE...`` or ``receive DESTINATION MANY RESUME``: flags are 0 or 1, paths hexadecimal.
    """
    for name in ("SIGHUP", "SIGTERM", "SIGINT"):
        signal.signal(getattr(signal, name), lambda *_: sys.exit(1))
    for fd in (0, 1):
        with contextlib.suppress(OSError):  # not a pipe, or not Linux
            fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE)
    _write(READY)
    try:
        if task == "send":
            resume, totals, *sources = arguments
            return _send([_path(source) for source in sources], ReadOptions(resume == "1", totals == "1", wholes=True))
        destination, many, resume, *_ = arguments
        # No budget: in the sandbox, its own disk is the limit.
        return _receive(WriteOptions(_path(destination), many == "1", resume == "1", 0o7777, 1 << 62, 1 << 62))
    except (Stopped, ProtocolError) as error:
        _write(encode(Problem(b"", str(error))))
        return 1
    except BrokenPipeError:
        return 1
    except OSError as error:
        _write(encode(Problem(b"", reason(error) + "; the copy was stopped.")))
        return 1


def _send(sources: list[bytes], reading: ReadOptions) -> int:
    records = walk(sources, reading)
    answers = _read()
    queue = []
    size = 0
    answer: Have | None = None
    while True:
        try:
            record = records.send(answer)
        except StopIteration:
            break
        answer = None
        frame = encode(record)
        queue.append(frame)
        size += len(frame)
        if size >= CHUNK or isinstance(record, (Offer, End)):
            _write(b"".join(queue))
            queue.clear()
            size = 0
        if isinstance(record, Offer):
            reply = next(answers, None)
            if not isinstance(reply, Have):
                return 1
            answer = reply
    # The receiver confirms the end by a record; an EOF instead means that the copy failed.
    return 0 if next(answers, None) is not None else 1


def _receive(writing: WriteOptions) -> int:
    receiver = Receiver(writing, lambda path, why: _write(encode(Problem(path, why))), lambda: os.urandom(8).hex())
    try:
        for record in _read():
            answer = receiver.apply(record)
            if answer is not None:
                _write(encode(answer))
            if isinstance(record, End):
                return 0
        return 1  # EOF before End: the copy was cut
    finally:
        receiver.close()


def _path(text: str) -> bytes:
    """Decode a path and expand ~. Paths are sent in hexadecimal so that no shell or locale can change them."""
    path = bytes.fromhex(text)
    if path == b"~" or path.startswith(b"~/"):
        return os.path.expanduser(b"~") + path[1:]  # noqa: PTH111 - bytes
    return path


def _read() -> Iterator[Record]:
    decoder = Decoder()
    while True:
        size = os.readv(0, [decoder.room()])
        if not size:
            return
        yield from decoder.filled(size)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
