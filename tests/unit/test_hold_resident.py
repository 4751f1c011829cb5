"""The resident's program, run by a python3 of this machine: its bounds, whatever comes by its socket."""

from __future__ import annotations

import array
import base64
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sshgate.hold.frames import FULL, HEAD, HELLO, OFFSET, SIZE, Kind
from sshgate.hold.line import _ATTACH, LONGEST, NONE, SOURCE, FrameReader
from sshgate.hold.terminal import RING
from tests.rig.waiting import until

# It looks for idle shells more often than usual.
MAIN = (
    "import os,sys;s=open(0,'rb').read();g={'__name__':'x'};exec(compile(s,'resident','exec'),g);"
    "g['LOOK_SECONDS']=.4;g['main'](%r,%d)"
)

USUAL = {"how": "new", "from": "here", "size": [80, 24, 0, 0], "program": "p", "shell": "", "detached": 600, "most": 20}


class Attached:
    """One attachment: two pipes whose far ends the resident has."""

    def __init__(self, directory: Path, greeting: bytes = HELLO) -> None:
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.control.connect(str(directory / "socket"))
        theirs_in, self.to = os.pipe()
        self.come, theirs_out = os.pipe()
        rights = array.array("i", [theirs_in, theirs_out])
        self.control.sendmsg([b"p"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        os.close(theirs_in)
        os.close(theirs_out)
        assert os.read(self.come, 64) == greeting
        self._reader = FrameReader()
        self.frames: list[tuple[int, bytes]] = []
        self.typed = 0
        self.ended = False

    def send(self, kind: int, payload: bytes = b"") -> None:
        os.write(self.to, HEAD.pack(kind, len(payload)) + payload)

    def join(self, script: str = "exec cat", **wish: Any) -> dict[str, Any]:
        own = {"client": os.urandom(4).hex(), "script": base64.b64encode(b"exec 3<&-;" + script.encode()).decode()}
        self.send(Kind.JOIN, json.dumps({**USUAL, **own, **wish}).encode())
        answer: dict[str, Any] = json.loads(self.until(Kind.JOINED))
        return answer

    def type(self, data: bytes) -> None:
        self.send(Kind.INPUT, OFFSET.pack(self.typed) + data)
        self.typed += len(data)

    def take(self, seconds: float = 0.2) -> None:
        """Take what comes within this time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and select.select([self.come], [], [], left)[0]:
            data = os.read(self.come, 1 << 16)
            if not data:
                self.ended = True
                return
            self.frames += self._reader.feed(data)

    def until(self, kind: int, matches: Callable[[bytes], bool] = lambda payload: True) -> bytes:
        for _ in range(150):
            for found, payload in self.frames:
                if found == kind and matches(payload):
                    return payload
            assert not self.ended, self.frames
            self.take(0.1)
        raise AssertionError(f"no {kind}, but {self.frames[-5:]}")

    @property
    def output(self) -> bytes:
        return b"".join(payload[OFFSET.size :] for kind, payload in self.frames if kind in (Kind.OUTPUT, Kind.SCREEN))

    def close(self) -> None:
        os.close(self.to)
        os.close(self.come)
        self.control.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def resident(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    ready, theirs = os.pipe()
    command = [sys.executable, "-IS", "-c", MAIN % (str(place), theirs)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[theirs]) as process:
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(SOURCE)
        process.stdin.close()
        assert os.read(ready, 1) == b""
        os.close(ready)
        yield process
        process.kill()


@pytest.fixture
def attach(resident: subprocess.Popen[bytes], place: Path) -> Iterator[Callable[[], Attached]]:
    made: list[Attached] = []

    def one() -> Attached:
        made.append(Attached(place))
        return made[-1]

    yield one
    assert resident.poll() is None
    for each in made:
        each.close()


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


def test_the_agent_is_that_of_the_client_that_came_last(attach: Callable[[], Attached], place: Path) -> None:
    def agent() -> Path:
        return Path(shown.until(Kind.OUTPUT, lambda payload: b"agent-" in payload)[OFFSET.size :].decode().strip())

    shown = attach()
    script = 'test "$SSH_AUTH_SOCK" = "$SSHGATE_AGENT" && echo $SSHGATE_AGENT; exec cat'
    name = shown.join(script, agents=True, agent="/tmp/one")["name"]
    assert agent().parent == place
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


def test_a_socket_that_was_deleted_comes_back(attach: Callable[[], Attached], place: Path) -> None:
    one = attach()
    name = one.join(agents=True, agent="/tmp/one")["name"]
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    until(lambda: (place / "socket").exists(), 10, "the socket")
    assert attach().join(how="named", name=name)["made"] is False
    assert [path.readlink() for path in place.glob("agent-*")] == [Path("/tmp/one")]


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


def test_a_python_that_is_too_old_says_so_at_once() -> None:
    old = "import sys;sys.version_info=(3,6,9)\n"
    done = subprocess.run([sys.executable, "-IS", "-c", old + _ATTACH], stdin=-3, capture_output=True, timeout=10)
    assert (done.stdout, done.returncode) == (NONE, 0)


def test_an_attachment_too_many_reads_why(attach: Callable[[], Attached], place: Path) -> None:
    for _ in range(64):
        attach()
    Attached(place, FULL).close()


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


def state_of(one: Attached) -> dict[str, Any]:
    found = [payload for kind, payload in one.frames if kind == Kind.STATE]
    state: dict[str, Any] = json.loads(found[-1]) if found else {}
    return state


def test_who_watches_types_nothing_and_decides_no_size(attach: Callable[[], Attached]) -> None:
    owner, watcher = attach(), attach()
    joined = owner.join("trap 'stty size' WINCH;echo up;while read line;do echo got $line;done", states=True)
    owner.until(Kind.OUTPUT, lambda payload: b"up" in payload)
    answer = watcher.join(how="watch", id=joined["id"], size=[20, 5, 0, 0], states=True, **{"from": "192.0.2.7"})
    assert (answer["made"], answer["id"]) == (False, joined["id"])
    watcher.until(Kind.SCREEN, lambda payload: b"up" in payload)
    watcher.type(b"not this\n")
    for kind, payload in (
        (Kind.RESIZE, SIZE.pack(10, 10, 0, 0)), (Kind.SIGNAL, b"h"), (Kind.SIGNAL, b"gKILL"), (Kind.END, b"1"),
        (Kind.REPORTED, joined["id"].encode()), (Kind.JOIN, b"{}"),
    ):  # fmt: skip
        watcher.send(kind, payload)
    owner.type(b"this\n")
    watcher.until(Kind.OUTPUT, lambda payload: b"got this" in payload)
    owner.take()
    assert b"not this" not in owner.output
    assert b"24 80" not in owner.output
    assert state_of(owner) == state_of(watcher) == {"size": [80, 24], "watchers": ["192.0.2.7"]}
    watcher.control.shutdown(socket.SHUT_RDWR)
    owner.until(Kind.STATE, lambda payload: json.loads(payload)["watchers"] == [])


def test_who_may_type_types_and_its_terminal_answers_nothing(attach: Callable[[], Attached]) -> None:
    owner, watcher = attach(), attach()
    joined = owner.join("stty -echo;echo up;while read line;do echo got $line;done", states=True)
    owner.until(Kind.OUTPUT, lambda payload: b"up" in payload)
    watcher.join(how="watch", id=joined["id"], types=True, size=[20, 5, 0, 0])
    watcher.type(b"\x1b[?62;4c\x1b[1;1Rhe\x1b[Ollo\n")
    owner.until(Kind.OUTPUT, lambda payload: b"got hello\r\n" in payload)
    assert state_of(owner)["size"] == [80, 24]


def test_who_only_watches_keeps_nothing_and_is_not_in_the_way(attach: Callable[[], Attached]) -> None:
    owner, watcher, list_one, back = attach(), attach(), attach(), attach()
    joined = owner.join("echo up;exec cat", shell="sh")
    watcher.join(how="watch", id=joined["id"])
    owner.control.shutdown(socket.SHUT_RDWR)
    while not owner.ended:
        owner.take(0.1)
    list_one.send(Kind.LIST)
    (one,) = json.loads(list_one.until(Kind.LISTED))
    assert (one["from"], one["watchers"], one["detached"] > 0) == ([], ["here"], True)
    assert back.join(how="auto", shell="sh")["id"] == joined["id"]
    other = attach()
    other.send(Kind.JOIN, json.dumps({**USUAL, "how": "watch", "id": "none", "client": "x"}).encode())
    assert other.until(Kind.FAILED) == b"gone"


def test_many_who_watch_leave_room_and_do_not_make_a_program_redraw_all_the_time(
    attach: Callable[[], Attached],
) -> None:
    owner = attach()
    joined = owner.join("trap 'echo drawn' WINCH;printf '\\033[?1049hup';while :;do sleep .05;done")
    owner.until(Kind.OUTPUT, lambda payload: b"up" in payload)
    for _ in range(24):
        attach().join(how="watch", id=joined["id"])
    late = attach()
    late.send(Kind.JOIN, json.dumps({**USUAL, "how": "watch", "id": joined["id"], "client": "x"}).encode())
    assert late.until(Kind.FAILED) == b"watched"
    owner.take(1.5)
    assert 1 <= owner.output.count(b"drawn") <= 4
    attach().join()
