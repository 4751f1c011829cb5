"""A session's time: idle shells end, working ones do not, and a lifetime ends everything."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.conftest import MakeGateway
from tests.rig.gateway import Gateway
from tests.rig.ssh import Ssh
from tests.rig.terminal import OnTerminal

UserAt = Callable[[Gateway], Ssh]
TTY = ("-tt",)


@pytest.fixture(scope="session")
def short_lived(make_gateway: MakeGateway, provider: str, user_at: UserAt) -> Ssh:
    """A user whose shells may be idle for 3 s; in the profile `brief` everything ends after 6 s."""
    limits = {"idle": "3s", "max_lifetime": "1h"}
    brief = {"extends": "default", "limits": {"idle": "1h", "max_lifetime": "6s"}}
    return user_at(make_gateway(provider, profiles={"default": {"limits": limits}, "brief": brief}))


def test_an_idle_shell_ends_with_a_reason(short_lived: Ssh) -> None:
    with OnTerminal(short_lived.argv(options=TTY)) as terminal:
        terminal.enter("echo rea''dy")
        terminal.expect(b"ready")
        terminal.expect(b"sshgate: this session ended: it was idle")
        assert terminal.until_end() == 255


def test_a_shell_that_runs_something_is_not_idle(short_lived: Ssh) -> None:
    with OnTerminal(short_lived.argv(options=TTY)) as terminal:
        terminal.enter("sleep 7; echo do''ne")
        terminal.expect(b"done")
        terminal.enter("exit 4")
        assert terminal.until_end() == 4


def test_a_silent_command_is_not_idle(short_lived: Ssh) -> None:
    started = time.monotonic()
    assert short_lived.run("sleep 5; exit 9").status == 9
    assert time.monotonic() - started >= 5


def test_a_lifetime_ends_whatever_runs(short_lived: Ssh) -> None:
    ended = short_lived.as_user("dev+brief").run("sleep 100")
    assert ended.status == 255
    assert "sshgate: this session ended: its time is over." in ended.both
