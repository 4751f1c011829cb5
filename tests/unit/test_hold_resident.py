"""The resident's program, run by a python3 of this machine: its bounds, whatever comes by its socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from types import SimpleNamespace
from typing import Any

import pytest

from sshgate.hold import frames
from sshgate.hold.frames import FULL, HEAD, OFFSET, SIZE, Kind
from sshgate.hold.line import _ATTACH, LONGEST, NONE
from sshgate.hold.terminal import RING, Session, end_idle
from tests.rig.resident import USUAL, Attached, running
from tests.rig.waiting import until


def test_what_is_typed_again_is_taken_once(attach: Callable[[], Attached]) -> None:
    one = attach()
    one.join("stty raw -echo;echo up;exec cat", client="c")
    one.until(Kind.OUTPUT, lambda payload: b"up" in payload)
    one.type(b"hello ")
    one.send(Kind.INPUT, OFFSET.pack(0) + b"hello world")
    one.send(Kind.INPUT, OFFSET.pack(3) + b"lo world")
    one.send(Kind.INPUT, OFFSET.pack(50) + b"from ahead")
    assert OFFSET.unpack(one.until(Kind.TAKEN, lambda payload: OFFSET.unpack(payload)[0] == 11)) == (11,)
    one.take()
    assert one.output.endswith(b"hello world")


@pytest.mark.parametrize("ends", [False, True])
def test_a_client_that_got_no_answer_and_asks_again_begins_nothing_twice(
    attach: Callable[[], Attached], tmp_path: Path, ends: bool
) -> None:
    """Its exec broke between its wish and the answer."""
    command = f"echo begun;echo . >>{tmp_path}/times;{'exit 3' if ends else 'exec cat'}"
    first = attach()
    first.join(command, client="c")
    first.until(Kind.ENDED if ends else Kind.OUTPUT)
    again = attach()
    again.join(command, client="c")
    if ends:
        assert json.loads(again.until(Kind.ENDED)) == ["exit", 3]
    again.take()
    assert b"begun" in again.output
    assert (tmp_path / "times").read_text() == ".\n"


def test_a_resident_that_ends_leaves_no_file_and_another_takes_its_place(tmp_path: Path) -> None:
    place = tmp_path / "own"
    for _ in range(2):
        with running(place) as process:
            assert sorted(one.name for one in place.iterdir()) == ["lock", "socket"]
            Attached(place).close()  # it has waited in a sandbox that was claimed for something else
            assert process.wait(10) == 0
        assert not place.exists()


def test_a_file_system_without_a_count_of_links_keeps_no_resident_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Linkless:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def fstat(self, fd: int) -> Any:
            return SimpleNamespace(st_nlink=0)

    monkeypatch.setattr(frames, "os", Linkless())
    entrance = frames.Listener(str(tmp_path / "own"))
    entrance.open()
    with entrance.listener:
        assert entrance.is_there()
    os.close(entrance.lock)


@pytest.mark.parametrize(
    "frame",
    [
        HEAD.pack(Kind.JOIN, 3) + b"{}}",
        HEAD.pack(Kind.JOIN, 2) + b"{}",
        HEAD.pack(Kind.RESIZE, 1) + b"x",
        HEAD.pack(Kind.OUTPUT, 0xFFFFFFFF),
    ],
)
def test_a_frame_that_no_gateway_sends_ends_its_attachment_alone(attach: Callable[[], Attached], frame: bytes) -> None:
    other, one = attach(), attach()
    other.join()
    one.join()
    os.write(one.to, frame)
    if frame[0] == Kind.OUTPUT:
        one.take()
        assert one.ended
    other.type(b"still here\n")
    other.until(Kind.OUTPUT, lambda payload: b"still here" in payload)


def test_a_megabyte_of_output_is_kept_and_the_last_of_it_shown(
    attach: Callable[[], Attached], resident: subprocess.Popen[bytes]
) -> None:
    one = attach()
    name = one.join("printf '\\033[?2004h';seq 1 500000;echo over;read x")["name"]
    one.until(Kind.OUTPUT, lambda payload: b"over" in payload)
    one.control.shutdown(socket.SHUT_RDWR)
    again = attach()
    answer = again.join(how="named", name=name)
    again.until(Kind.SCREEN, lambda payload: b"over" in payload)
    again.take()
    shown = again.output.decode().split("\r\n")
    numbers = [int(line) for line in shown if line.isdigit()]
    assert numbers == list(range(500_001 - len(numbers), 500_001))
    assert len(numbers) > 20_000
    assert b"\x1b[?2004h" in again.output
    assert answer["offset"] > RING
    memory = int(Path(f"/proc/{resident.pid}/statm").read_text().split()[1]) * 4096
    assert memory < 24 << 20


def test_a_client_that_does_not_read_stops_the_program_and_loses_nothing(attach: Callable[[], Attached]) -> None:
    one = attach()
    one.join("seq 1 400000;echo over;read x")
    time.sleep(0.5)
    one.until(Kind.OUTPUT, lambda payload: b"over" in payload)
    numbers = [int(line) for line in one.output.decode().split("\r\n") if line.isdigit()]
    assert numbers == list(range(1, 400_001))


BUSY = {
    "a-child": "sleep 30;exit",
    "another-program": "exec cat",
    "short-children": "while :;do /bin/true;done",
    "its-own-commands": "while :;do :;done",
}


def test_an_idle_shell_ends_when_nobody_came_back_and_a_busy_one_stays(attach: Callable[[], Attached]) -> None:
    for name, script in {"idle": "read x", "ends": "sleep 2.5;read x", **BUSY}.items():
        one = attach()
        one.join(script, shell="sh", detached=2 if name == "ends" else 0, how="named", name=name)
        one.control.shutdown(socket.SHUT_RDWR)
    for _ in range(100):
        watching = attach()
        watching.send(Kind.LIST)
        listed = {one["name"]: one for one in json.loads(watching.until(Kind.LISTED))}
        if listed["idle"]["status"] and listed["ends"]["status"]:
            break
        time.sleep(0.2)
    for name in ("idle", "ends"):
        assert listed[name]["status"] == ["signal", signal.SIGHUP]
    assert {name: listed[name]["status"] for name in BUSY} == dict.fromkeys(BUSY)
    # From the end of what had run on without a client, not from when that left.
    assert listed["ends"]["ended"] - listed["ends"]["created"] > 2.5 + 2


def test_a_shell_that_works_stays_although_its_processor_has_no_time_for_it() -> None:
    """Between two looks that come at once its counters have not grown."""
    for script, status in (("echo;while :;do :;done", None), ("echo;read x", -signal.SIGHUP)):
        with subprocess.Popen(["sh", "-c", script], stdin=PIPE, stdout=PIPE, start_new_session=True) as shell:
            assert shell.stdout is not None
            assert shell.stdout.read(1) == b"\n"
            left = Session("left", "sh", "sh", 0.0)
            left.pid = shell.pid
            time.sleep(0.1)
            for _ in range(20):
                end_idle([left])
            try:
                assert (shell.poll() if status is None else shell.wait(10)) == status
            finally:
                shell.kill()


def test_a_shell_that_was_left_comes_before_a_command_that_was_left_later(attach: Callable[[], Attached]) -> None:
    for name, shell in (("shell", "sh"), ("command", "")):
        one = attach()
        one.join("read x", shell=shell, how="named", name=name)
        one.control.shutdown(socket.SHUT_RDWR)
        while not one.ended:
            one.take()
    first, second = attach(), attach()
    assert first.join(how="auto", shell="sh")["name"] == "shell"
    # The first one may have lost its client without a sign, and is asked before a command is joined.
    second.send(Kind.JOIN, json.dumps({**USUAL, "how": "auto", "client": "c"}).encode())
    first.until(Kind.PROBE)
    first.send(Kind.ALIVE)
    assert json.loads(second.until(Kind.JOINED))["name"] == "command"


def test_sizes_are_those_of_the_last_active_client(attach: Callable[[], Attached]) -> None:
    one = attach()
    one.join("while sleep 0.1;do stty size;done")
    one.until(Kind.OUTPUT, lambda payload: b"24 80" in payload)
    one.send(Kind.RESIZE, SIZE.pack(65535, 1, 0, 0))
    one.until(Kind.OUTPUT, lambda payload: b"1 65535" in payload)


def test_ended_sessions_are_kept_in_number(attach: Callable[[], Attached]) -> None:
    for _ in range(40):
        one = attach()
        one.join("exit 3")
        one.control.shutdown(socket.SHUT_RDWR)
    time.sleep(0.5)
    last = attach()
    last.send(Kind.LIST)
    assert len(json.loads(last.until(Kind.LISTED))) <= 32


def test_who_stays_attached_types_on_after_many_others_came_and_went(
    attach: Callable[[], Attached], resident: subprocess.Popen[bytes]
) -> None:
    stays = attach()
    name = stays.join("stty -echo; exec cat")["name"]
    stays.type(b"first\n")
    stays.until(Kind.OUTPUT, lambda payload: b"first" in payload)
    for _ in range(70):
        one = attach()
        one.join(how="named", name=name)
        one.control.close()
    stays.type(b"second\n")
    stays.until(Kind.OUTPUT, lambda payload: b"second" in payload)


def test_only_the_active_client_answers_the_program(attach: Callable[[], Attached]) -> None:
    first, second = attach(), attach()
    name = first.join("stty raw -echo; echo up; exec cat -v")["name"]
    second.join(how="named", name=name)
    first.until(Kind.OUTPUT, lambda payload: b"up" in payload)
    for one in (first, second):
        one.type(b"\x1b[?62;22c\x1b]11;rgb:0/0/0\x07")
    second.until(Kind.OUTPUT, lambda payload: b"rgb" in payload)
    # What is dropped is taken as well: its client may send more.
    first.until(Kind.TAKEN, lambda payload: OFFSET.unpack(payload)[0] == first.typed)
    first.type(b"\x1b[?62;2")
    first.type(b"2cx")
    second.until(Kind.OUTPUT, lambda payload: payload.endswith(b"x"))
    second.take()
    assert second.output.partition(b"up\n")[2] == b"^[[?62;22c^[]11;rgb:0/0/0^Gx"
    first.type(b"\x1b[?62;22c")  # who has typed is the active one from then on
    second.type(b"\x1b[?62;22c")
    second.take()
    assert second.output.endswith(b"^Gx^[[?62;22c")


def test_the_agent_is_that_of_the_client_that_came_last(attach: Callable[[], Attached], tmp_path: Path) -> None:
    def agent() -> Path:
        return Path(shown.until(Kind.OUTPUT, lambda payload: b"agent-" in payload)[OFFSET.size :].decode().strip())

    shown = attach()
    script = 'test "$SSH_AUTH_SOCK" = "$SSHGATE_AGENT" && echo $SSHGATE_AGENT; exec cat'
    name = shown.join(script, agents=True, agent="/tmp/one")["name"]
    assert agent().parent == tmp_path
    assert agent().readlink() == Path("/tmp/one")
    second, third = attach(), attach()
    second.join(how="named", name=name, agent="/tmp/two")
    third.join(how="named", name=name)
    assert agent().readlink() == Path("/tmp/two")
    second.control.shutdown(socket.SHUT_RDWR)
    while not second.ended:
        second.take()
    third.type(b"\n")
    shown.take()
    assert agent().readlink() == Path("/tmp/one")
    third.type(b"\x04")
    shown.until(Kind.ENDED)
    assert not agent().is_symlink()


def test_a_socket_that_was_deleted_comes_back(attach: Callable[[], Attached], tmp_path: Path) -> None:
    one = attach()
    name = one.join(agents=True, agent="/tmp/one")["name"]
    for path in tmp_path.iterdir():
        path.unlink()
    tmp_path.rmdir()
    until(lambda: (tmp_path / "socket").exists(), 10, "the socket")
    assert attach().join(how="named", name=name)["made"] is False
    assert [path.readlink() for path in tmp_path.glob("agent-*")] == [Path("/tmp/one")]


def test_a_long_list_fits_into_a_frame_and_has_the_running_sessions_first(attach: Callable[[], Attached]) -> None:
    title = "\U0001f600" * 80
    for number in range(44):
        one = attach()
        script = f"printf '\\033]0;{title}\\007up'; " + ("exit" if number < 30 else "exec cat")
        one.join(script, program=title)
        one.until(Kind.ENDED if number < 30 else Kind.OUTPUT, lambda payload: b"up" in payload or b"exit" in payload)
        one.control.shutdown(socket.SHUT_RDWR)
    asking = attach()
    asking.send(Kind.LIST)
    answer = asking.until(Kind.LISTED)
    assert len(answer) <= LONGEST
    states = [one["status"] for one in json.loads(answer)]
    assert states[:14] == [None] * 14
    assert ["exit", 0] in states


def test_one_login_at_a_time_reports_an_end(attach: Callable[[], Attached]) -> None:
    ends, first, second, third = (attach() for _ in range(4))
    ends.join("exit 3", how="named", name="ends")
    ends.until(Kind.ENDED)
    ends.control.shutdown(socket.SHUT_RDWR)
    while not ends.ended:
        ends.take()
    assert [one["name"] for one in first.join()["past"]] == ["ends"]
    assert second.join()["past"] == []
    first.control.shutdown(socket.SHUT_RDWR)
    while not first.ended:
        first.take()
    assert [one["name"] for one in third.join()["past"]] == ["ends"]


def test_one_that_only_waited_ends_with_what_was_attached(resident: subprocess.Popen[bytes], tmp_path: Path) -> None:
    one, other = Attached(tmp_path), Attached(tmp_path)
    one.close()
    other.send(Kind.PING)
    other.until(Kind.PONG)
    other.close()
    assert resident.wait(1) == 0


def test_a_python_that_is_too_old_says_so_at_once() -> None:
    old = "import sys;sys.version_info=(3,6,9)\n"
    done = subprocess.run([sys.executable, "-IS", "-c", old + _ATTACH], stdin=-3, capture_output=True, timeout=10)
    assert (done.stdout, done.returncode) == (NONE, 0)


def test_an_attachment_too_many_reads_why(attach: Callable[[], Attached], tmp_path: Path) -> None:
    for _ in range(64):
        attach()
    Attached(tmp_path, FULL).close()


def test_an_end_counts_as_reported_once_a_client_says_so(attach: Callable[[], Attached]) -> None:
    def unreported() -> list[str]:
        asking = attach()
        asking.send(Kind.LIST)
        return [one["name"] for one in json.loads(asking.until(Kind.LISTED))]

    def gone(one: Attached) -> None:
        one.control.shutdown(socket.SHUT_RDWR)
        while not one.ended:
            one.take()

    lost, got = attach(), attach()
    lost.join("exit 3", how="named", name="lost")
    got_id = got.join("exit 4", how="named", name="got")["id"]
    for one in (lost, got):
        one.until(Kind.ENDED)
    got.send(Kind.REPORTED, got_id.encode())
    got.until(Kind.PONG)
    for one in (lost, got):
        gone(one)
    assert unreported() == ["lost"]
    after = attach()
    (past,) = after.join()["past"]
    assert (past["name"], past["status"]) == ("lost", ["exit", 3])
    assert "lost" in unreported()
    after.send(Kind.REPORTED, past["id"].encode())
    after.until(Kind.PONG)
    assert "lost" not in unreported()
