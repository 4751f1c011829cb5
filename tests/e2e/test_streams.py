"""Bytes through the line: whole, in order, ended where they end, and bounded where nobody reads."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.waiting import until

MIB = 1 << 20
# A gigabyte where a cluster is on the way; the way to a local sandbox is a pipe and has been passed by less.
BULK = {
    kind: int(os.environ.get("SSHGATE_BULK_MIB", mib)) * MIB for kind, mib in (("local", 256), ("kubernetes", 1024))
}


@pytest.fixture(scope="module")
def bulk(provider: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A large file without patterns, and its sha256."""
    path = tmp_path_factory.mktemp("bulk") / "bulk"
    seed, digest = os.urandom(8 * MIB), hashlib.sha256()
    with path.open("wb") as file:
        for number in range(BULK[provider] // len(seed)):
            block = number.to_bytes(8, "big") + seed[8:]
            digest.update(block)
            file.write(block)
    yield path, digest.hexdigest()
    path.unlink()


def test_stdin_has_an_end(ssh: Ssh) -> None:
    assert ssh.run("cat | wc -c", stdin=b"x").out.split() == [b"1"]
    assert ssh.run("cat | wc -c", stdin=b"").out.split() == [b"0"]


def test_stdin_can_be_refused_at_the_client(ssh: Ssh) -> None:
    ended = ssh.run("cat; echo done", options=("-n",))
    assert (ended.status, ended.out) == (0, b"done\n")


def test_every_byte_passes_unchanged(ssh: Ssh) -> None:
    data = bytes(range(256)) * 300 + b"\n\0\xff" + b"~.\r\n~."
    assert ssh.run("cat", options=("-T",), stdin=data).out == data


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_large_stream_goes_up_whole(ssh: Ssh, bulk: tuple[Path, str]) -> None:
    path, digest = bulk
    with path.open("rb") as file:
        done = subprocess.run(ssh.argv("sha256sum"), stdin=file, capture_output=True, timeout=280, check=True)
    assert done.stdout.split()[0].decode() == digest


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_large_stream_comes_down_whole(ssh: Ssh, provider: str) -> None:
    # Made and hashed there, so that nothing large has to go up first.
    script = (
        "import hashlib,sys\n"
        f"left,d,n={BULK[provider]},hashlib.sha256(),0\n"
        "while left:\n"
        "  b=hashlib.sha512(n.to_bytes(8,'big')).digest()*1024; n+=1\n"
        "  left-=len(b); d.update(b); sys.stdout.buffer.write(b)\n"
        "sys.stdout.buffer.flush(); print(d.hexdigest(),file=sys.stderr)"
    )
    with subprocess.Popen(
        ssh.argv(f'python3 -c "{script}"'), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        digest, size = hashlib.sha256(), 0
        while block := client.stdout.read(MIB):
            digest.update(block)
            size += len(block)
        assert client.stderr.read().decode().strip() == digest.hexdigest()
    assert (client.returncode, size) == (0, BULK[provider])


def test_both_outputs_arrive_whole_before_the_status(ssh: Ssh) -> None:
    ended = ssh.run("head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2; exit 5")
    assert (ended.status, len(ended.out), len(ended.err)) == (5, 3_000_000, 2_000_000)


def test_a_client_that_stalls_at_the_end_loses_nothing(ssh: Ssh, provider: str) -> None:
    """Kubernetes reports success after dropping what a slow client had not taken: docs/decisions/04-end-marks.md."""
    size, stall = 6_000_000, 2 if provider == "local" else 11
    words = ssh.argv(f"head -c {size} /dev/zero")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        came = len(client.stdout.read(1000))
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(stall)  # it cannot end, nobody reads
        came += len(client.stdout.read())
    assert (came, client.wait(20)) == (size, 0)


def test_errors_written_after_the_end_of_output_arrive(ssh: Ssh) -> None:
    ended = ssh.run("echo out; exec >&-; sleep 0.3; echo late >&2; exit 4")
    assert (ended.status, ended.out, ended.err) == (4, b"out\n", b"late\n")


def test_a_program_that_leaves_stdin_unread_keeps_its_status(ssh: Ssh) -> None:
    ended = ssh.run("exit 9", stdin=b"u" * 10 * MIB)
    assert ended.status == 9


def test_a_reader_that_has_enough_ends_the_program(ssh: Ssh) -> None:
    # ssh tells the server by eow@openssh.com; the program dies of SIGPIPE, or its channel is closed.
    with subprocess.Popen(ssh.argv("cat /dev/zero"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert len(client.stdout.read(1000)) == 1000
        client.stdout.close()
        assert client.wait(20) != 0


def test_a_program_slower_than_its_client_costs_little_memory(ssh: Ssh, shared: Gateway) -> None:
    ssh.run("true")
    before = shared.memory
    # What it writes comes back by the same connection, so it cannot read as fast as the client sends.
    with subprocess.Popen(ssh.argv("cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        feeding = threading.Thread(target=_feed, args=(client.stdin, 192 * MIB))
        feeding.start()
        came = highest = 0
        while block := client.stdout.read(MIB):
            came += len(block)
            highest = max(highest, shared.memory)
        feeding.join()
    assert (came, client.returncode) == (192 * MIB, 0)
    assert highest - before < 24 * MIB


def _feed(pipe: IO[bytes], size: int) -> None:
    with pipe:
        for _ in range(size // MIB):
            pipe.write(bytes(MIB))


def test_a_client_that_does_not_read_costs_little_memory(ssh: Ssh, shared: Gateway) -> None:
    ssh.run("true")
    before = shared.memory
    with subprocess.Popen(ssh.argv("cat /dev/zero"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.read(MIB)
        highest = 0
        samples: list[int] = []

        def settled() -> bool:
            nonlocal highest
            samples.append(shared.memory)
            highest = max(highest, samples[-1])
            return len(samples) > 150  # three seconds of pushing against a closed door

        until(settled, 20)
        client.kill()
    assert highest - before < 16 * MIB


@pytest.mark.local
def test_everything_passes_by_asyncsshs_own_packets(
    gateway: MakeGateway, user_at: Callable[[Gateway], Ssh], local: None
) -> None:
    ssh = user_at(gateway("local", ssh={"fast_path": False}))
    data = os.urandom(4 * MIB)
    ended = ssh.run("cat; echo oh >&2; exit 7", stdin=data)
    assert (ended.status, ended.out, ended.err) == (7, data, b"oh\n")
    for cipher in ("aes256-ctr", "aes128-gcm@openssh.com"):
        assert ssh.run("stty size", options=("-tt", "-c", cipher)).status == 0
