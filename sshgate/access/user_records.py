"""A ``ledger.Shelf`` in a JSON file with mode 0600, for gateways on one machine."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sshgate.errors import Unavailable

_texts = msgspec.json.Decoder(dict[str, str])


class FileUserRecords:
    """A ``ledger.Shelf`` in one file, which several gateways may share.

    The file is created by the first write. Both methods run in a thread and raise ``Unavailable`` when the file
    cannot be used. Cancelling ``change`` does not stop the thread: the write may still happen.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __repr__(self) -> str:
        return f"<FileUserRecords {self._path}>"

    async def all(self) -> Mapping[str, str]:
        """See ``ledger.Shelf``."""
        return await asyncio.to_thread(self._read)

    async def change(self, user: str, change: Callable[[str], str]) -> str:
        """See ``ledger.Shelf``."""
        return await asyncio.to_thread(self._changed, user, change)

    def _changed(self, user: str, change: Callable[[str], str]) -> str:
        with self._locked():
            texts = self._read()
            texts[user] = change(texts.get(user, ""))
            self._write(msgspec.json.encode(texts))
            return texts[user]

    def _read(self) -> dict[str, str]:
        try:
            return _texts.decode(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeError, msgspec.DecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is damaged; without it all tokens end"
            raise Unavailable(f"{self._path} cannot be read: {reason}.") from error

    def _write(self, content: bytes) -> None:
        try:
            new = self._path.with_name(f".{self._path.name}.new")
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise Unavailable(f"tokens and logouts cannot be written down: {error.strerror}.") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold an exclusive lock on the directory. The file itself cannot be locked: every write replaces it."""
        try:
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"tokens and logouts cannot be written down: {error.strerror}.") from error
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)
