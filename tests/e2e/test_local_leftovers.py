"""Nothing of a local sandbox stays, stopped programs included: after its session, its gateway's end, or its death."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sshgate.providers.local import cgroup
from tests.rig.gateway import Gateway, left_files, nothing_left
from tests.rig.processes import descendants
from tests.rig.ssh import Ssh
from tests.rig.terminal import OnTerminal
from tests.rig.waiting import until

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("local")]

CONTROL_Z = "\x1a"


def in_a_shell(terminal: OnTerminal) -> None:
    """A job that reads in the background, and two that are suspended."""
    terminal.expect(rb"\$ ")
    terminal.enter("cat &")
    for program in ("sleep 600", "cat"):
        terminal.enter(f"sh -c 'echo o''n; exec {program}'")
        terminal.expect(rb"[\r\n]on\r")
        terminal.type(CONTROL_Z)
        terminal.expect(rb"Stopped +sh")


def itself(terminal: OnTerminal) -> None:
    """The program that the client asked for stops itself, as `top` does at ^Z."""
    terminal.expect(b"up")


SCENES: dict[str, tuple[tuple[str, ...], Callable[[OnTerminal], None]]] = {
    "jobs of a shell": ((), in_a_shell),
    "the program itself": (("echo up; kill -STOP $$; sleep 600",), itself),
    "a reader in the background": (("echo up; cat & cat </dev/tty & kill -STOP $!; sleep 600",), itself),
}


@pytest.fixture
def served(gateway: Callable[..., Gateway]) -> Gateway:
    return gateway("local", profiles={"default": {"hold": "never"}})


@pytest.fixture
def stopped(served: Gateway, user_at: Callable[[Gateway], Ssh]) -> Iterator[list[OnTerminal]]:
    """Each scene on a terminal of its own, one of them in a sandbox with a name."""
    ssh = user_at(served)
    with ExitStack() as clients:
        terminals = []
        for user, (command, play) in zip(("dev=work", "dev", "dev"), SCENES.values(), strict=True):
            terminal = clients.enter_context(OnTerminal(ssh.as_user(user).argv(*command, options=("-tt",))))
            play(terminal)
            terminals.append(terminal)
        yield terminals


def states(gateway: Gateway) -> list[str]:
    """Of each process below the gateway, `T` for a stopped one and so on."""
    texts = []
    for seen in descendants(gateway.pid):
        try:
            texts.append(Path(f"/proc/{seen.pid}/stat").read_text().rpartition(")")[2].split()[0])
        except OSError:
            pass  # it has ended meanwhile
    return texts


def test_clients_that_leave_stopped_programs_behind(served: Gateway, stopped: list[OnTerminal]) -> None:
    until(lambda: states(served).count("T") >= 5, 10, "the programs to stop")
    for terminal in stopped:
        terminal.client.kill()
    # Of the named sandbox its own processes stay.
    until(lambda: len(states(served)) == 3, 15, "the end of all but an empty sandbox")
    assert "T" not in states(served)


@pytest.mark.parametrize("killed", [False, True], ids=["term", "kill"])
def test_a_gateway_that_ends_with_stopped_programs(served: Gateway, stopped: list[OnTerminal], killed: bool) -> None:
    until(lambda: states(served).count("T") >= 5, 10, "the programs to stop")
    assert len(left_files(served.pid)) == 1 + 3 * (cgroup.here() is not None)
    assert served.process is not None
    if killed:
        nothing_left(served.kill())
        left = left_files(served.pid)
        served.start()
        assert not any(path.exists() for path in left)
    else:
        served.stop()
        assert left_files(served.pid) == []


def test_a_program_that_goes_on_after_a_stop_ends_its_session(
    served: Gateway, user_at: Callable[[Gateway], Ssh]
) -> None:
    ssh = user_at(served)
    for options in ((), ("-tt",)):
        ended = ssh.run("(sleep 0.3; kill -CONT $$) & kill -STOP $$; exit 7", options=options, limit=20)
        assert ended.status == 7
