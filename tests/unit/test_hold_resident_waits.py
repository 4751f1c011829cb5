"""What a resident waits for, and what goes on meanwhile: input nobody reads, descriptors, another one that ends."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from socket import AF_UNIX, socket

from sshgate.hold.frames import OFFSET, Kind, Listener
from sshgate.hold.terminal import KEPT, TYPED
from tests.rig.processes import cpu_seconds, without_descriptors
from tests.rig.resident import Attached, attaching, running
from tests.rig.waiting import until

CHUNK = 15_000
MIB = 1 << 20


def test_a_program_goes_on_at_once_when_its_client_has_read_all_that_waited(tmp_path: Path) -> None:
    with running(tmp_path, looks=60) as process, attaching(process, tmp_path) as attach:
        one = attach()
        fcntl.fcntl(one.come, fcntl.F_SETPIPE_SZ, MIB)
        one.join(f"stty raw -echo;sleep 0.5;exec head -c {16 * MIB} /dev/zero")

        def waiting() -> int:
            size: int = struct.unpack("i", fcntl.ioctl(one.come, termios.FIONREAD, bytes(4)))[0]
            return size

        for turn in range(6):
            until(lambda: waiting() > MIB // 2, 10, f"output in turn {turn}")
            time.sleep(0.2)  # the program has to wait by then
            os.read(one.come, MIB)


def test_input_that_nobody_reads_holds_up_no_other_client_and_arrives_once(
    attach: Callable[[], Attached], tmp_path: Path
) -> None:
    go, taken, each = tmp_path / "go", tmp_path / "taken", 4 * CHUNK
    clients = [attach() for _ in range(TYPED // each + 3)]
    script = (
        f"stty raw -echo;echo up;until [ -e {go} ];do sleep 0.1;done;head -c {len(clients) * each} >{taken};echo all"
    )
    name = clients[0].join(script)["name"]
    for one in clients[1:]:
        one.join(how="named", name=name)
    clients[0].until(Kind.OUTPUT, lambda payload: b"up" in payload)
    for letter, one in enumerate(clients, ord("a")):
        for _ in range(4):
            one.type(bytes([letter]) * CHUNK)
    for one in clients:
        one.send(Kind.PING)
        one.until(Kind.PONG)
    go.touch()
    for one in clients:
        one.until(Kind.TAKEN, lambda payload: OFFSET.unpack(payload)[0] == each)
    clients[0].until(Kind.OUTPUT, lambda payload: b"all" in payload)
    text = taken.read_bytes()
    assert [text.count(letter) for letter in range(ord("a"), ord("a") + len(clients))] == [each] * len(clients)


def test_of_a_client_that_sends_too_much_no_more_is_read_than_of_others(attach: Callable[[], Attached]) -> None:
    floods, other = attach(), attach()
    name = floods.join("stty raw -echo;echo up;exec sleep 60")["name"]
    other.join(how="named", name=name)
    floods.until(Kind.OUTPUT, lambda payload: b"up" in payload)
    size = TYPED + KEPT + 2 * 65536  # what is queued, kept, and came by the last reads

    def flood() -> None:
        for _ in range(2 * size // CHUNK):
            floods.type(bytes(CHUNK))

    sending = threading.Thread(target=flood)
    sending.start()
    other.take(0.5)
    other.send(Kind.PING)
    other.until(Kind.PONG)
    assert floods.typed < size + 65536, "and what its pipe takes"
    other.send(Kind.SIGNAL, b"gKILL")
    other.until(Kind.ENDED)
    sending.join(10)
    assert not sending.is_alive()
    floods.send(Kind.PING)
    floods.until(Kind.PONG)


def test_a_resident_without_descriptors_goes_on_and_accepts_later(
    attach: Callable[[], Attached], resident: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    one = attach()
    one.join()
    with ExitStack() as stack, without_descriptors(resident.pid):
        for _ in range(8):
            stack.enter_context(socket(AF_UNIX)).connect(str(tmp_path / "socket"))
        before = cpu_seconds(resident.pid)
        one.take(2.0)
        assert cpu_seconds(resident.pid) - before < 1.0
        one.type(b"still here\n")
        one.until(Kind.OUTPUT, lambda payload: b"still here" in payload)
    attach().join()


def test_a_resident_waits_for_one_that_is_just_ending(tmp_path: Path) -> None:
    old = Listener(str(tmp_path / "own"))
    old.open()
    Path(old.path).unlink()  # the first thing that it does
    old.listener.close()
    ends = threading.Timer(0.3, os.close, [old.lock])
    ends.start()
    with running(tmp_path / "own") as process, closing(Attached(tmp_path / "own")) as one:
        one.join()
        assert process.poll() is None
    ends.join()


def test_a_resident_ends_at_once_where_another_listens(tmp_path: Path) -> None:
    with running(tmp_path) as first, running(tmp_path) as second:
        assert second.wait(10) == 0
        with closing(Attached(tmp_path)) as one:
            one.join()
        assert first.poll() is None


def test_a_directory_that_cannot_be_made_ends_a_resident(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with running(tmp_path / "file") as process:
        assert process.wait(10) == 0
