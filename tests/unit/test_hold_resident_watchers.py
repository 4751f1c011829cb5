"""Those that watch at a resident: they decide nothing, and cost its user little, however many or slow."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sshgate.hold.frames import SIZE, Kind
from tests.rig.resident import USUAL, Attached


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
    assert [kind for kind, _ in watcher.frames[:3]] == [Kind.JOINED, Kind.STATE, Kind.SCREEN]
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


def leave(*clients: Attached) -> None:
    for one in clients:
        one.control.shutdown(socket.SHUT_RDWR)
        while not one.ended:
            one.take()


def test_those_that_read_slowly_get_few_screens_and_the_last(
    attach: Callable[[], Attached], resident: subprocess.Popen[bytes]
) -> None:
    owner, slow = attach(), [attach(), attach()]
    burst = "head -c 3000000 /dev/zero|tr '\\0' x;sleep .05"
    joined = owner.join(f"i=0;while [ $i -lt 20 ];do {burst};i=$((i+1));done;echo ov''er;exec cat")
    began = time.monotonic()
    for one in slow:
        one.join(how="watch", id=joined["id"])
    leave(owner)
    while time.monotonic() - began < 2.5:
        time.sleep(0.1)  # a burst or two
        for one in slow:
            one.take(0.01)
    for one in slow:
        kinds = [kind for kind, _ in one.frames]
        screens = sum(pair == (Kind.SCREEN, Kind.OUTPUT) for pair in itertools.pairwise(kinds))
        assert screens <= 1 + time.monotonic() - began
    for one in slow:
        while b"over" not in one.output[-100:]:
            one.take()
    used = Path(f"/proc/{resident.pid}/stat").read_text().split()[13:15]
    time.sleep(0.5)
    after = Path(f"/proc/{resident.pid}/stat").read_text().split()[13:15]
    assert sum(map(int, after)) - sum(map(int, used)) <= 5


def test_those_that_watch_do_not_make_it_forget_what_its_user_has_typed(attach: Callable[[], Attached]) -> None:
    owner = attach()
    joined = owner.join("stty -echo;echo up;exec cat", client="owner")
    owner.until(Kind.OUTPUT, lambda payload: b"up" in payload)
    owner.type(b"typed\n")
    owner.until(Kind.OUTPUT, lambda payload: b"typed" in payload)
    leave(owner)
    for _ in range(70):
        one = attach()
        one.join(how="watch", id=joined["id"], types=True)
        leave(one)
    assert attach().join(how="resume", id=joined["id"], client="owner", offset=0)["received"] == 6
