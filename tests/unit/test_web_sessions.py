"""The registry of web sessions: when a session that was ended counts as ended."""

from __future__ import annotations

from typing import cast

import pytest

from sshgate.access.identity import Identity, LoginName
from sshgate.hold.wishes import Place
from sshgate.session.interfaces import Gateway
from sshgate.stream.terminal import TerminalSize
from webshim.credentials import Principal
from webshim.session import WebSession
from webshim.sessions import Sessions

OWNER = Principal("dev", "link", "proof", "id", 0.0, 1e12)


class Known:
    """A gateway that knows of every sandbox, or of none."""

    def __init__(self, profile: str | None) -> None:
        self._profile = profile

    def existing_profile(self, user: str, name: str) -> str | None:
        return self._profile


@pytest.mark.parametrize(
    ("name", "profile", "ended", "removed"),
    [
        ("work", "default", False, False),
        ("work", None, False, False),
        ("web-0123456789", "default", False, False),
        ("web-0123456789", None, False, True),
        ("web-0123456789", "default", True, True),
    ],
    ids=["named", "named and gone", "the sandbox is still there", "the sandbox is gone", "the program has ended"],
)
async def test_a_session_is_removed_once_its_program_has_ended_or_its_sandbox_is_gone(
    name: str, profile: str | None, ended: bool, removed: bool
) -> None:
    identity = Identity(LoginName("dev", None, name, None), "web-link", "proof", "127.0.0.1")
    place = Place("id", name="1", ended=ended)
    session = WebSession("id", identity, OWNER, "default", TerminalSize(), place)
    assert await Sessions(cast(Gateway, Known(profile)), 20).removed(session) == removed
