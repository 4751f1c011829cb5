"""What launchers find of an address: open, closed by a refusal or by silence, or nothing; by bash and by busybox."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sshgate.sandbox import launcher
from sshgate.sandbox.launcher import ReadyMark
from sshgate.sandbox.probe import LOOK_PATH, Probe, Verdict
from tests.rig.launching import CLEAN, PATIENCE

PROGRAMS = ("bash", "nc")


@contextmanager
def listening(backlog: int) -> Iterator[socket.socket]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen(backlog)
        yield one


@contextmanager
def silent() -> Iterator[socket.socket]:
    """A port whose SYNs are dropped: the kernel does so while the queue of a listener is full."""
    with ExitStack() as stack:
        full = stack.enter_context(listening(0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full


@pytest.fixture(params=PROGRAMS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return image(tmp_path, request.param)


def image(place: Path, *programs: str) -> Path:
    """The only directory of programs of an image."""
    for name in ("cat", "date", "sleep", "timeout", *programs):
        (place / name).symlink_to(f"/bin/{name}" if name == "bash" else "/bin/busybox")
    return place


@contextmanager
def started(
    place: Path, probe: Probe, inside: Sequence[str] = (), **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    argv = launcher.looking(launcher.ARGV, probe)
    script = argv[2].replace("PATH=/usr/bin:/bin:$PATH;", f"PATH={place}:$PATH;").replace(LOOK_PATH, str(place))
    environment = {"PATH": str(place)} | environment
    with subprocess.Popen(
        [*inside, *argv[:2], script, *argv[3:]], stdin=-1, stdout=-1, stderr=-1, env=CLEAN | environment, bufsize=0
    ) as running:
        yield running


def verdict(place: Path, probe: Probe, inside: Sequence[str] = (), **environment: str) -> Verdict:
    with started(place, probe, inside, **environment) as running:
        out, err = running.communicate(launcher.NOTHING, PATIENCE)
    mark = ReadyMark()
    assert mark.feed(out) == running.pid, err
    return mark.verdict


def at(one: socket.socket, seconds: int = 0) -> Probe:
    host, port = one.getsockname()
    return Probe(host, str(port), seconds)


def test_an_address_that_accepts_is_open(place: Path) -> None:
    with listening(100) as one:
        assert verdict(place, at(one, 1)) is Verdict.OPEN


def test_an_address_that_refuses_is_closed(place: Path) -> None:
    with listening(0) as one:
        refusing = at(one, 5)
    assert verdict(place, refusing) is Verdict.CLOSED


def test_an_address_that_does_not_answer_is_closed(place: Path) -> None:
    with silent() as one:
        assert verdict(place, at(one)) is Verdict.CLOSED


def test_the_launcher_waits_until_it_is_closed(place: Path) -> None:
    with listening(100) as one, started(place, at(one, 15)) as running:
        assert running.stdout is not None
        assert running.stdout.read(1) == b"\1", "the exec is known to have begun"
        for _ in range(5):
            one.accept()[0].close()
        assert not select.select([running.stdout], [], [], 0)[0], "no mark while it is open"
        one.close()
        out, _ = running.communicate(launcher.NOTHING, PATIENCE)
    assert out == b"\1%d\2" % running.pid


def test_the_address_of_the_api_server_is_in_every_pods_environment(place: Path) -> None:
    with listening(100) as one:
        host, port = one.getsockname()
        environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)}
        assert verdict(place, Probe("", "", 0), **environment) is Verdict.OPEN
    assert verdict(place, Probe("", "", 0), **environment) is Verdict.CLOSED
    assert verdict(place, Probe("", "", 0)) is Verdict.BLIND


def test_an_image_without_a_program_for_it_is_blind(tmp_path: Path) -> None:
    assert verdict(image(tmp_path), Probe("127.0.0.1", "1", 0)) is Verdict.BLIND


def test_a_program_to_look_with_is_not_taken_from_the_path_of_the_image(tmp_path: Path) -> None:
    """A directory of the home may be in it, with what its user left there in an earlier sandbox."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "bash").write_text("#!/bin/sh\n")
    (home / "bash").chmod(0o755)
    place = tmp_path / "image"
    place.mkdir()
    assert verdict(image(place), Probe("127.0.0.1", "1", 0), PATH=str(home)) is Verdict.BLIND


def changed(place: Path, edit: str = "/", first: str = ":") -> Path:
    """An image whose bash makes this edit of the script, and runs a command before it."""
    image(place)
    (place / "bash").write_text(
        f'#!/bin/bash\n{first}\nshift\nset -- "${{1{edit}}}" "${{@:2}}"\nexec /bin/bash -c "$@"\n'
    )
    (place / "bash").chmod(0o755)
    return place


@pytest.mark.parametrize("files", range(6, 14))
def test_a_look_without_its_three_connections_finds_nothing_closed(files: int, tmp_path: Path) -> None:
    with listening(100) as one:
        assert verdict(changed(tmp_path, first=f"ulimit -n {files}"), at(one)) is not Verdict.CLOSED


def test_a_connect_that_fails_for_want_of_something_finds_nothing_closed(tmp_path: Path) -> None:
    """As "invalid argument", which is what a link-local address without a link gets."""
    assert verdict(image(tmp_path, "bash"), Probe("fe80::1", "1", 0)) is Verdict.OPEN


def test_closed_means_two_looks_in_a_row(tmp_path: Path) -> None:
    """Of two servers one is down: the first look leads there three times, the second one does not."""
    with listening(0) as one:
        refusing = at(one)
    with listening(100) as one:
        edit = f"/read -t 0.03 <> <?:?; look/set -- {one.getsockname()[1]}; look"
        assert verdict(changed(tmp_path, edit), refusing) is Verdict.OPEN


def test_a_bash_that_cannot_connect_finds_nothing_closed(tmp_path: Path) -> None:
    """Debian once built it without /dev/tcp."""
    assert verdict(changed(tmp_path, "//\\/dev\\/tcp/\\/dev\\/none"), Probe("127.0.0.1", "1", 0)) is Verdict.OPEN


# --- a node that rejects or drops what its pods send ---

NODE = """ip link set pod netns $1 && ip addr add 192.0.2.2/24 dev node && ip link set node up
ip link add out type veth peer name far && ip link set out up && ip link set far up
echo 1 > /proc/sys/net/ipv4/ip_forward && echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
ip route add 198.51.100.0/24 dev out
iptables -A FORWARD -d 198.51.100.1 -j REJECT && iptables -A FORWARD -d 198.51.100.2 -j DROP"""
POD = "ip addr add 192.0.2.1/24 dev pod && ip link set pod up && ip route add default via 192.0.2.2"
WITHOUT_WAITING = "/read -rt 0.2/return 1; read"


@pytest.fixture
def pod() -> Iterator[Sequence[str]]:
    """The words before a command that run it in the network of a pod, on a node with a policy."""
    if os.geteuid() != 0 or shutil.which("iptables") is None:
        pytest.skip("makes networks: needs root and iptables")
    holder = ["unshare", "--net", "sh", "-c", "echo && read end"]
    with subprocess.Popen(holder, stdin=-1, stdout=-1) as node, subprocess.Popen(holder, stdin=-1, stdout=-1) as one:
        for holding in (node, one):
            assert holding.stdout is not None
            holding.stdout.readline()
        at_node, in_pod = ([str(shutil.which("nsenter")), f"--net=/proc/{each.pid}/ns/net"] for each in (node, one))
        try:
            subprocess.run([*at_node, "ip", "link", "add", "node", "type", "veth", "peer", "name", "pod"], check=True)
            subprocess.run([*at_node, "sh", "-ec", NODE, "sh", str(one.pid)], check=True)
            subprocess.run([*in_pod, "sh", "-ec", POD], check=True)
            yield in_pod
        finally:
            node.communicate(b"\n")
            one.communicate(b"\n")


def test_what_the_node_rejects_is_closed_without_waiting_for_silence(pod: Sequence[str], tmp_path: Path) -> None:
    """The kernel leaves the connection waiting, since the node's message arrives while it is being begun."""
    place = changed(tmp_path, WITHOUT_WAITING)
    assert verdict(place, Probe("198.51.100.1", "443", 10), pod) is Verdict.CLOSED
    assert verdict(place, Probe("198.51.100.2", "443", 1), pod) is Verdict.OPEN, "messages of before prove nothing"


# Prints how many messages have come.
OTHERS = """import socket, time
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(8000):
    one.sendto(b"", ("198.51.100.1", 9))
    print(open("/proc/net/snmp").read().split("\\nIcmp: ")[2].split()[3], flush=True)
    time.sleep(0.005)
"""


def test_messages_of_other_destinations_prove_nothing(pod: Sequence[str], tmp_path: Path) -> None:
    """Who had the pod's address before, or a neighbour, can make any number of them come."""
    place = changed(tmp_path, WITHOUT_WAITING)
    with subprocess.Popen([*pod, sys.executable, "-c", OTHERS], stdout=-1) as others:
        try:
            assert others.stdout is not None
            assert any(int(line) > 3 for line in others.stdout), "the kernel counts them"
            assert verdict(place, Probe("198.51.100.2", "443", 1), pod) is Verdict.OPEN
        finally:
            others.kill()


def test_what_the_node_drops_is_closed(pod: Sequence[str], place: Path) -> None:
    assert verdict(place, Probe("198.51.100.2", "443", 5), pod) is Verdict.CLOSED
