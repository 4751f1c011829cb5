"""Signals, breaks, lost terminals and background jobs over real channels, in a sandbox that outlives them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MakeGateway
from tests.rig import library
from tests.rig.forwarding import master, session
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

LISTENS = "trap 'echo got {0}; exit 5' {0}; echo up; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def user(make_gateway: MakeGateway, provider: str, user_at: Callable[[Gateway], Ssh]) -> Ssh:
    door = make_gateway(provider, profiles={"default": {"scope": "connection"}})
    return user_at(door)


@pytest.mark.parametrize("name", ["USR1", "TERM", "INT", "HUP", "QUIT", "ALRM"])
async def test_a_signal_request_reaches_the_program(user: Ssh, name: str) -> None:
    async with asyncio.timeout(30), library.connection(user) as made:
        process = await made.create_process(LISTENS.format(name))
        assert await process.stdout.readline() == "up\n"
        process.send_signal(name)
        assert await process.stdout.readline() == f"got {name}\n"
        assert (await process.wait()).exit_status == 5


async def test_a_signal_ends_a_program_that_does_not_expect_it(user: Ssh) -> None:
    async with asyncio.timeout(30), library.connection(user) as made:
        process = await made.create_process("echo up; exec sleep 600")
        assert await process.stdout.readline() == "up\n"
        process.send_signal("KILL")
        ended = await process.wait()
        assert ended.exit_signal is not None or ended.exit_status == 137


async def test_signals_that_are_none_are_ignored(user: Ssh) -> None:
    async with asyncio.timeout(30), library.connection(user) as made:
        process = await made.create_process("echo up; read line; exit 6")
        assert await process.stdout.readline() == "up\n"
        for name in ("NONE", "9", "$(reboot)", "usr1"):
            process.channel.send_signal(name)
        process.stdin.write("\n")
        assert (await process.wait()).exit_status == 6


async def test_a_break_interrupts_what_runs_on_a_terminal(user: Ssh) -> None:
    async with asyncio.timeout(30), library.connection(user) as made:
        program = "trap 'echo got it; exit 7' INT; echo up; while :; do sleep 0.1; done"
        process = await made.create_process(program, term_type="xterm")
        assert (await process.stdout.readline()).strip() == "up"
        process.channel.send_break(500)
        output = await process.stdout.read()
        assert "got it" in output
        assert (await process.wait()).exit_status == 7


async def test_a_signal_of_one_channel_leaves_the_others_alone(user: Ssh) -> None:
    async with asyncio.timeout(30), library.connection(user) as made:
        first, second = [await made.create_process("echo up; read line; exit 8") for _ in range(2)]
        for process in (first, second):
            assert await process.stdout.readline() == "up\n"
        first.send_signal("TERM")
        assert (await first.wait()).exit_status != 8
        second.stdin.write("\n")
        assert (await second.wait()).exit_status == 8


def test_a_lost_terminal_hangs_up_what_ran_on_it(user: Ssh, tmp_path: Path) -> None:
    with master(user, tmp_path) as control:
        program = "trap 'echo hung up >/tmp/hung-up; exit' HUP; echo up; while :; do sleep 0.1; done"
        with session(user, program, "-tt", *control) as (_, line):
            assert line == "up"
        output = until(lambda: user.run("cat /tmp/hung-up 2>/dev/null", options=control).out, 20, "the hang-up")
        assert output == b"hung up\n"


def test_a_background_job_that_let_go_of_the_output_is_left_running(user: Ssh, tmp_path: Path) -> None:
    with master(user, tmp_path) as control:
        assert user.run("sleep 4714 >/dev/null 2>&1 </dev/null & echo done", options=control).out == b"done\n"
        assert user.run("pgrep -fx 'sleep 4714' >/dev/null", options=control).status == 0


def test_a_client_that_leaves_during_a_pipe_ends_both_sides(user: Ssh, tmp_path: Path) -> None:
    with master(user, tmp_path) as control:
        with session(user, "echo up; yes | tee /dev/null | cat >/dev/null", *control):
            pass
        until(lambda: user.run("pgrep -x 'yes|tee'", options=control).status == 1, 20, "the end of the pipe")
