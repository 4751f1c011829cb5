"""A sandbox that lies about its files: what it answers is bounded in bytes, in time of the loop, and per user."""

from __future__ import annotations

import asyncio
import itertools
import resource
import time
from collections.abc import AsyncIterator, Callable

import pytest

from sshgate.errors import LimitReached
from sshgate.sandbox import shell_files as sandbox_files
from sshgate.sandbox.shares import FileLimits
from sshgate.sandbox.shell_files import LONGEST_ANSWER, PAGE, FilesLost, ShellFiles
from sshgate.ssh.sftp import serve_files
from sshgate.stream.bridge import Traffic
from sshgate.stream.interfaces import STDERR, STDOUT, Exited, Lost
from sshgate.stream.turns import SHARE
from tests.rig.ends import TestClient, TestProcess

ENTRY = b"81a4 0 0 5 1 1 1 /%s/\n" % (b"n" * 200)
ENOUGH = 64 << 20


class Liar(TestProcess):
    """Answers the first questions well, and then says what it likes, without an end or with one that never comes."""

    def __init__(self, flood: bytes, stream: int = STDOUT) -> None:
        super().__init__()
        self.written = 0
        self._flood = flood
        self._stream = stream
        self._well: list[bytes] = []
        self._asked = asyncio.Event()

    async def write(self, data: bytes) -> None:
        await super().write(data)
        text = bytes(self.sent)
        token = text.partition(b"token=")[2][:32]
        for question, answer in ((b"answer hello", b"0022"), (b"answer listable", b"100000")):
            if question in text:
                self._well.append(answer + b"\n" + token + b" 0 \2")
                self.sent = bytearray(b"token=" + token)
        self._asked.set()

    async def read(self) -> tuple[int, bytes] | None:
        await self._asked.wait()
        if self._well:
            return STDOUT, self._well.pop(0)
        assert self.written < ENOUGH, "it is read without an end"
        if not self._flood:
            await asyncio.Event().wait()
        self.written += len(self._flood)
        return self._stream, self._flood


class Empty(TestProcess):
    """Has a directory with any number of names, and pages without any."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = 0

    async def write(self, data: bytes) -> None:
        await super().write(data)
        token = bytes(self.sent).partition(b"token=")[2][:32]
        answers = {b"answer hello": b"0022", b"answer listable": b"9" * 30, b"answer page": b""}
        for question, answer in answers.items():
            if question in data:
                self.pages += question == b"answer page"
                self.output.put(answer + b"\n" + token + b" 0 \2", STDOUT)


async def _list(files: ShellFiles) -> AsyncIterator[bytes]:
    async for name, _ in await files.entries(b"./d"):
        yield name


@pytest.mark.parametrize("stream", [STDOUT, STDERR])
@pytest.mark.parametrize(
    "ask",
    [
        lambda files: _list(files).__anext__(),
        lambda files: files.read(b"./f", 0, 100),
        lambda files: files.status(b"./f", follow=True),
    ],
    ids=["a page", "a block", "a line"],
)
async def test_an_answer_without_an_end_is_the_end(ask: Callable[[ShellFiles], object], stream: int) -> None:
    process = Liar(ENTRY * 200, stream)
    files = ShellFiles(process)
    await files.begin()
    with pytest.raises(FilesLost, match="answers without an end"):
        await ask(files)  # type: ignore[misc]
    assert process.written <= LONGEST_ANSWER + 2 * len(ENTRY * 200)


async def test_a_page_is_read_without_holding_up_the_loop() -> None:
    answer = ENTRY * PAGE
    turns = 0
    began, ticks = time.monotonic(), itertools.count()

    async def look() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    class Big(Liar):
        async def read(self) -> tuple[int, bytes] | None:
            if b"answer page" in self.sent:
                token = bytes(self.sent).partition(b"token=")[2][:32]
                self.sent.clear()
                return STDOUT, answer + b"\n" + token + b" 0 \2"
            return await super().read()

    process = Big(b"")
    files = ShellFiles(process)
    await files.begin()
    # Each look at the clock costs a tenth of a turn's share, and there is one for each entry.
    files._budget._turns.clock = lambda: began + next(ticks) * SHARE / 10
    looking = asyncio.create_task(look())
    names = _list(files)
    assert [await anext(names) for _ in range(PAGE)] == [b"n" * 200] * PAGE
    looking.cancel()
    assert turns > PAGE / 20


async def test_long_answers_of_one_user_wait_for_each_other_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_files, "ANSWER_SECONDS", 0.5)
    answers = FileLimits().answers
    silent = [ShellFiles(Liar(b""), answers, f"user{number % 5}") for number in range(25)]
    for files in silent:
        await files.begin()
    waiting = [asyncio.create_task(files.read(b"./f", 0, 1)) for files in silent]
    await asyncio.sleep(0.1)
    bobs = ShellFiles(Liar(ENTRY * 200), answers, "bob")
    await bobs.begin()
    with pytest.raises(FilesLost, match="without an end"):  # at once: theirs are not his
        async with asyncio.timeout(0.3):
            await bobs.read(b"./f", 0, 1)
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(one) for one in ended] == ["the sandbox's shell did not answer within a minute"] * len(silent)


async def test_servers_of_one_user_are_counted() -> None:
    places = FileLimits()
    held = [places.server("alice") for _ in range(24)]
    for one in held:
        one.__enter__()
    with pytest.raises(LimitReached, match="you have 24 file transfers"), places.server("alice"):
        pass
    with places.server("bob"):
        pass
    held.pop().__exit__(None, None, None)
    with places.server("alice"):
        pass


async def test_a_client_gets_an_error_and_memory_is_not_filled() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clients = []
    for _ in range(24):
        client = TestClient()
        client.input.put(
            b"\0\0\0\5\1\0\0\0\3" + b"\0\0\0\x0a\x0b\0\0\0\1\0\0\0\1d" + b"\0\0\0\x0d\x0c\0\0\0\2\0\0\0\4\0\0\0\0"
        )
        clients.append(serve_files(client, ShellFiles(Liar(ENTRY * 200)), Traffic()))
    ended = await asyncio.gather(*clients)
    assert ended == [Lost("the sandbox's shell answers without an end.")] * 24
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 96 << 10  # KiB


class Odd(TestProcess):
    """Has the same number wherever there is one, but for the umask and the length of a directory."""

    def __init__(self, number: bytes) -> None:
        super().__init__()
        status = b" ".join([number] * 7)
        space = b" ".join([number] * 8)
        self.answers = {b"hello": b"22", b"listable": b"3", b"status_behind": status, b"space": space}
        self.answers[b"page"] = status + b" /n/\n"
        self._token = b""

    async def write(self, data: bytes) -> None:
        self._token = self._token or data.partition(b"token=")[2][:32]
        question = data.partition(b"answer ")[2].split()
        if question:
            self.output.put(self.answers[question[0]] + b"\n" + self._token + b" 0 \2", STDOUT)


@pytest.mark.parametrize("number", [b"", b"x", b"-1", b"9" * 30, b"9" * 4000])
async def test_numbers_that_nothing_has_get_an_answer(number: bytes) -> None:
    """They are no error of the gateway's own, which would wake an operator."""
    client = TestClient()
    asked = [
        b"\1\0\0\0\3",
        b"\x11\0\0\0\1\0\0\0\1a",
        b"\xc8\0\0\0\2\0\0\0\x13statvfs@openssh.com\0\0\0\1a",
        b"\x0b\0\0\0\3\0\0\0\1d",
        b"\x0c\0\0\0\4\0\0\0\4\0\0\0\0",
    ]
    client.input.put(b"".join(len(one).to_bytes(4, "big") + one for one in asked))
    client.input.put_eof()
    assert await serve_files(client, ShellFiles(Odd(number)), Traffic()) == Exited(0)
    assert all(bytes([0, 0, 0, asked]) in client.written for asked in (1, 2, 3, 4))


@pytest.mark.parametrize("question", [b"hello", b"listable"])
async def test_counts_that_are_none_are_errors_of_the_sandbox(question: bytes) -> None:
    process = Odd(b"1")
    process.answers[question] = b"many"
    files = ShellFiles(process)

    async def begin_and_list() -> None:
        await files.begin()
        await files.entries(b"./d")

    with pytest.raises(OSError, match="another form"):
        await begin_and_list()


async def test_a_directory_without_an_end_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_files, "MOST_NAMES", 5 * PAGE)
    process = Empty()
    files = ShellFiles(process)
    await files.begin()
    async with asyncio.timeout(20):
        assert [name async for name in _list(files)] == []
    assert process.pages == 5
