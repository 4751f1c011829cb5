"""A session's time: idle shells end, working ones do not, and a lifetime ends everything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ended, Ssh
from tests.rig.terminal import OnTerminal

UserAt = Callable[[Gateway], Ssh]
TTY = ("-tt",)
# Its sessions go on all at once: what is waited for is time. Of each, when and how it ended.
Sessions = dict[str, "Future[tuple[float, Ended]]"]


@pytest.fixture(scope="module")
def sessions(make_gateway: MakeGateway, provider: str, user_at: UserAt) -> Iterator[Sessions]:
    """A user whose shells may be idle for 3 s; in the profile `brief` everything ends after 6 s."""
    limits = {"idle": "3s", "max_lifetime": "1h"}
    brief = {"extends": "default", "limits": {"idle": "1h", "max_lifetime": "6s"}}
    user = user_at(make_gateway(provider, profiles={"default": {"limits": limits}, "brief": brief}))
    with ThreadPoolExecutor() as at_once:
        yield {
            "idle shell": at_once.submit(_timed, lambda: _shell(user, "true")),
            "working shell": at_once.submit(_timed, lambda: _shell(user, "sleep 7; echo do''ne; exit 4")),
            "silent command": at_once.submit(_timed, lambda: user.run("sleep 5; exit 9")),
            "endless command": at_once.submit(_timed, lambda: user.as_user("dev+brief").run("sleep 100")),
        }


def _timed(session: Callable[[], Ended]) -> tuple[float, Ended]:
    started = time.monotonic()
    ended = session()
    return time.monotonic() - started, ended


def _shell(user: Ssh, line: str) -> Ended:
    """A shell in which one line is typed."""
    with OnTerminal(user.argv(options=TTY)) as terminal:
        terminal.enter("echo rea''dy")
        terminal.expect(b"ready")
        terminal.enter(line)
        return Ended(terminal.until_end(60), terminal.output, b"")


def test_an_idle_shell_ends_with_a_reason(sessions: Sessions) -> None:
    _, ended = sessions["idle shell"].result()
    assert ended.status == 255
    assert "sshgate: this session ended: it was idle" in ended.both


def test_a_shell_that_runs_something_is_not_idle(sessions: Sessions) -> None:
    took, ended = sessions["working shell"].result()
    assert ended.status == 4
    assert "done" in ended.both
    assert took >= 7


def test_a_silent_command_is_not_idle(sessions: Sessions) -> None:
    took, ended = sessions["silent command"].result()
    assert ended.status == 9
    assert took >= 5


def test_a_lifetime_ends_whatever_runs(sessions: Sessions) -> None:
    _, ended = sessions["endless command"].result()
    assert ended.status == 255
    assert "sshgate: this session ended: its time is over." in ended.both
