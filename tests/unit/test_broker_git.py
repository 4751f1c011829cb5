"""git's own clone, fetch and push through the broker, with a token that stays outside, against git's own server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from sshgate.broker.environment import routes
from sshgate.broker.server import Broker
from sshgate.broker.sockets import LIMIT, SocketStream
from sshgate.config.model import Config, GitHost, Profile
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events, Record
from tests.rig.broker import Unmetered
from tests.unit.outside_world import CALLER

TOKEN = "ghp_canary"
HOST = "git.example"
BACKEND = Path(subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip())
pytestmark = pytest.mark.skipif(not (BACKEND / "git-http-backend").exists(), reason="git has no http-backend here")


@dataclass
class Server:
    """git's own server over HTTP, for those who have the token."""

    root: Path
    seen: list[web.BaseRequest] = field(default_factory=list)
    slow: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody waits for an answer that does not come."""
    port: int = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append(request)
        wanted = f"Basic {base64.b64encode(f'x-access-token:{TOKEN}'.encode()).decode()}"
        if request.headers.get("Authorization") != wanted:
            return web.Response(status=401)
        path, _, query = request.raw_path.partition("?")
        if "fails" in path and "gzip" in request.headers.get("Accept-Encoding", ""):
            return web.Response(status=500, headers={"Content-Encoding": "gzip"}, body=b"unreadable")
        if "fails" in path:
            return web.Response(status=500, text=f"{request.headers}: {TOKEN}", headers={"X-Token": TOKEN})
        if "slow" in path:
            await request.content.read()
            self.slow.set()
            await asyncio.sleep(60)
        if "moved" in path:
            return web.Response(status=301, headers={"Location": "http://elsewhere.example/"})
        body = await request.content.read()
        process = await asyncio.create_subprocess_exec(
            str(BACKEND / "git-http-backend"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": request.method, "REMOTE_USER": "ada",
                "CONTENT_TYPE": request.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            },
        )  # fmt: skip
        output, _ = await process.communicate(body)
        head, _, content = output.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(fields.pop("Status", "200").split()[0])
        return web.Response(status=status, headers=fields, body=content)


@contextlib.asynccontextmanager
async def server(root: Path) -> AsyncIterator[Server]:
    made = Server(root)
    runner = web.ServerRunner(web.Server(made.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()


@dataclass
class Sandbox:
    """A place for git, with the broker's port on loopback."""

    home: Path
    port: int
    profile: Profile
    records: list[Record]
    broker: Broker

    async def git(self, *argv: str, fails: bool = False) -> str:
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.home), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@example.org", **routes(self.profile, self.port),
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            "git", *argv, cwd=self.home, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        text = output.decode()
        assert bool(process.returncode) is fails, text
        return text


@contextlib.asynccontextmanager
async def sandbox(
    tmp_path: Path, allow: Sequence[str] = ("*",), push: bool = True
) -> AsyncIterator[tuple[Sandbox, Server]]:
    (tmp_path / "home").mkdir()
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    repository = tmp_path / "root" / "team" / "thing.git"
    repository.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(repository)], check=True)  # noqa: ASYNC221
    async with server(tmp_path / "root") as upstream:
        host = GitHost(tmp_path / "token", f"http://127.0.0.1:{upstream.port}", tuple(allow), push)
        profile = Profile(git=(HOST,))
        records: list[Record] = []
        broker = Broker(Config(git={HOST: host}, profiles={"default": profile}), Events(records.append), Unmetered())
        await broker.open()

        async def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await broker.serve(SocketStream(reader, writer), CALLER)

        listener = await asyncio.start_server(came, "127.0.0.1", 0, limit=LIMIT)
        try:
            yield Sandbox(tmp_path / "home", listener.sockets[0].getsockname()[1], profile, records, broker), upstream
        finally:
            listener.close()
            await broker.close()
            await listener.wait_closed()


@pytest.mark.parametrize("address", [f"https://{HOST}/team/thing.git", f"git@{HOST}:team/thing.git"])
async def test_clone_push_and_fetch_with_a_token_that_the_sandbox_does_not_have(tmp_path: Path, address: str) -> None:
    async with sandbox(tmp_path) as (one, upstream):
        await one.git("clone", "-q", address, "thing")
        # Large enough that git sends it in pieces, without a length, after asking with `Expect`.
        (one.home / "thing" / "file").write_bytes(os.urandom(3 << 20))
        await one.git("-C", "thing", "checkout", "-q", "-b", "main")
        await one.git("-C", "thing", "add", "file")
        await one.git("-C", "thing", "commit", "-q", "-m", "one")
        await one.git("-C", "thing", "push", "-q", "origin", "main")
        await one.git("clone", "-q", address, "again")
        assert (one.home / "again" / "file").read_bytes() == (one.home / "thing" / "file").read_bytes()
        await one.git("-C", "again", "fetch", "-q")
        assert all(TOKEN.encode() not in path.read_bytes() for path in one.home.rglob("*") if path.is_file())
        pushed = [one for one in one.records if one.fields.get("service") == "git-receive-pack"]
        assert {record.code for record in pushed} == {Code.GIT_REQUEST}
        assert max(int(record.fields["bytes_in"]) for record in pushed) > 3 << 20
        assert {record.fields["repository"] for record in pushed} == {"team/thing.git"}
        assert TOKEN not in repr(one.records)
        assert not any("Cookie" in request.headers for request in upstream.seen)


async def test_repositories_and_pushes_that_are_not_allowed_are_refused_with_a_sentence(tmp_path: Path) -> None:
    async with sandbox(tmp_path, allow=["team/*"], push=False) as (one, upstream):
        await one.git("clone", "-q", f"https://{HOST}/team/thing.git", "thing")
        asked = len(upstream.seen)
        refused = await one.git("clone", f"https://{HOST}/other/thing.git", "other", fails=True)
        assert "sshgate: other/thing.git is not among the repositories allowed here" in refused
        await one.git("-C", "thing", "commit", "-q", "--allow-empty", "-m", "one")
        refused = await one.git("-C", "thing", "push", "origin", "HEAD:main", fails=True)
        assert f"sshgate: pushing to {HOST} is not allowed here" in refused
        assert len(upstream.seen) == asked
        assert [record.code for record in one.records][-2:] == [Code.GIT_REFUSED] * 2


@pytest.mark.parametrize(
    "line",
    [
        "GET /git/git.example/team/thing.git/HEAD",
        "GET /git/git.example/team/thing.git/info/refs",
        "GET /git/git.example/team/thing.git/info/refs?service=git-upload-archive",
        "GET /git/git.example/team/thing.git/info/refs?service=git-upload-pack&x=1",
        "GET /git/git.example/team/thing.git/git-upload-pack",
        "POST /git/git.example/team/thing.git/info/refs?service=git-upload-pack",
        "GET /git/git.example/../api/info/refs?service=git-upload-pack",
        "GET /git/git.example/team/../../x/info/refs?service=git-upload-pack",
        "GET /git/git.example/team/%2e%2e/info/refs?service=git-upload-pack",
        "GET /git/git.example/api/v3/user",
        "POST /git/git.example/team/thing.git/info/lfs/objects/batch",
        "GET /git/other.example/team/thing.git/info/refs?service=git-upload-pack",
        "GET /git/git.example:1/team/thing.git/info/refs?service=git-upload-pack",
    ],
)
async def test_only_what_git_asks_is_passed_on(tmp_path: Path, line: str) -> None:
    async with sandbox(tmp_path) as (one, upstream):
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.readline(), 20)
        writer.close()
        assert answer.split()[1] in (b"403", b"404"), answer
        assert upstream.seen == []
        assert one.records[-1].code is Code.GIT_REFUSED


async def test_an_answer_within_a_drain_is_the_last_of_its_connection(tmp_path: Path) -> None:
    asked = f"GET /git/{HOST}/team/thing.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    async with sandbox(tmp_path) as (one, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(asked)
        assert b"close" not in (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).lower()
        await asyncio.wait_for(one.broker.drain(20), 20)
        late, another = await asyncio.open_connection("127.0.0.1", one.port)
        another.write(asked)
        answer = await asyncio.wait_for(late.read(), 20)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer.lower()
        writer.close()
        another.close()


async def test_a_wrong_token_and_a_redirect_are_explained(tmp_path: Path) -> None:
    async with sandbox(tmp_path) as (one, _):
        refused = await one.git("clone", f"https://{HOST}/team/moved.git", fails=True)
        assert "has it been renamed?" in refused
        (tmp_path / "token").write_text("another")
        refused = await one.git("clone", f"https://{HOST}/team/thing.git", fails=True)
        assert "does not take your operator's token" in refused


async def test_an_error_that_repeats_the_token_passes_without_it(tmp_path: Path) -> None:
    async with sandbox(tmp_path) as (one, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(
            f"GET /git/{HOST}/team/fails/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\n"
            "Accept-Encoding: deflate, gzip\r\n\r\n".encode()
        )
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"Basic ***" in answer
    assert TOKEN.encode() not in answer
    assert [(record.code, record.fields["status"]) for record in one.records] == [(Code.GIT_REQUEST, 500)]


async def test_a_push_whose_sandbox_leaves_before_the_answer_is_reported(tmp_path: Path) -> None:
    """The server has it all the same."""
    async with sandbox(tmp_path) as (one, upstream):
        _, writer = await asyncio.open_connection("127.0.0.1", one.port)
        head = f"POST /git/{HOST}/team/slow/git-receive-pack HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
        writer.write(head.encode() + b"0000")
        await asyncio.wait_for(upstream.slow.wait(), 20)
        writer.close()
        async with asyncio.timeout(20):
            while not one.records:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    (event,) = one.records
    found = {name: event.fields[name] for name in ("service", "repository", "status", "bytes_in", "whole")}
    assert event.code is Code.GIT_REQUEST
    assert found == {
        "service": "git-receive-pack", "repository": "team/slow", "status": 0, "bytes_in": 4, "whole": False
    }  # fmt: skip
