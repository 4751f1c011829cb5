"""Credentials that a plug-in of the kubeconfig prints: one that hangs, fails, prints a lot, or is awaited by many."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from sshgate.errors import Unavailable
from sshgate.providers.kubernetes.api.client import ApiServer
from tests.unit.apiserver import Served, connected, pod, serve, status

PLUG_IN_VERSION = "client.authentication.k8s.io/v1"
PLUG_IN_ANSWER = json.dumps({"apiVersion": PLUG_IN_VERSION, "kind": "ExecCredential", "status": {"token": "second"}})


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not so():  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(0.01)


def plug_in(served: Served, script: str) -> None:
    """Have the credentials come from a shell script."""
    settings = yaml.safe_load(served.kubeconfig.read_text())
    known = {"apiVersion": PLUG_IN_VERSION, "command": "sh", "args": ["-c", script], "interactiveMode": "Never"}
    settings["users"] = [{"name": "test", "user": {"exec": known}}]
    served.kubeconfig.write_text(yaml.safe_dump(settings))


async def authorized(request: web.Request) -> web.StreamResponse:
    if request.headers["Authorization"] != "Bearer second":
        return status(401, "Unauthorized")
    return web.json_response(pod("x"))


async def test_a_plug_in_that_hangs_is_killed_with_what_it_has_started(tmp_path: Path) -> None:
    async with serve(authorized, tmp_path) as served:
        plug_in(served, f"sleep 300 & echo $$ $! > {tmp_path}/running; wait")
        api = ApiServer(served.place(api_timeout=0.5))
        with pytest.raises(Unavailable, match=r"plug-in of .* did not answer in 0\.5 s and was killed\.$"):
            await api.open()
        running = (tmp_path / "running").read_text().split()
        assert len(running) == 2
        await until(lambda: not any(alive(pid) for pid in running))


def alive(pid: str) -> bool:
    """Whether it is there, and no zombie of this machine's first process."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


async def test_a_plug_in_that_prints_many_errors_is_read(tmp_path: Path) -> None:
    async with serve(authorized, tmp_path) as served:
        plug_in(served, f"head -c 1000000 /dev/zero >&2; echo '{PLUG_IN_ANSWER}'")
        async with connected(served, api_timeout=5.0) as api:
            assert (await api.get_pod("x")).metadata.uid == "uid-x"


async def test_a_plug_in_that_fails_is_quoted(tmp_path: Path) -> None:
    async with serve(authorized, tmp_path) as served:
        plug_in(served, "echo 'you are not logged in' >&2; exit 3")
        with pytest.raises(Unavailable, match=r"the plug-in ended with status 3\. you are not logged in$"):
            await ApiServer(served.place()).open()


async def test_a_plug_in_that_hangs_later_is_not_run_for_each_request(tmp_path: Path) -> None:
    async with serve(authorized, tmp_path) as served, connected(served, api_timeout=0.5, reread=0.0) as api:
        plug_in(served, f"echo >> {tmp_path}/runs; sleep 300")
        api._reread = 60.0
        api._read_at = -60.0
        for _ in range(3):
            with pytest.raises(Unavailable):
                await api.get_pod("x")
        assert (tmp_path / "runs").read_text() == "\n"


async def test_a_request_that_is_given_up_takes_the_credentials_from_no_other(tmp_path: Path) -> None:
    async with serve(authorized, tmp_path) as served, connected(served, reread=0.3) as api:
        await asyncio.sleep(0.4)
        plug_in(served, f"echo >> {tmp_path}/runs; sleep 0.3; echo '{PLUG_IN_ANSWER}'")
        given_up, other = (asyncio.create_task(api.get_pod("x")) for _ in range(2))
        await until((tmp_path / "runs").exists)
        given_up.cancel()
        assert (await other).metadata.uid == "uid-x"
        assert (tmp_path / "runs").read_text() == "\n"
