"""What an identity may have."""

from __future__ import annotations

import pytest

from sshgate.access.identity import Identity, LoginName, Restrictions
from sshgate.access.policy import Grant, grant
from sshgate.config.model import Home, Profile
from sshgate.errors import Denied
from sshgate.stream.interfaces import Exec, Request, Shell, Subsystem
from sshgate.stream.terminal import Terminal

PROFILES = {
    "default": Profile(),
    "gpu": Profile(name="gpu", allow=("alice", "team-*"), scope="channel"),
    "closed": Profile(name="closed", allow=()),
}
SHELL = Request(Shell())
FREE = Restrictions()


def granted(login: str = "bob", request: Request = SHELL, restrictions: Restrictions = FREE) -> Grant:
    identity = Identity(LoginName.parse(login), "publickey", "SHA256:x", "192.0.2.1", restrictions=restrictions)
    return grant(identity, request, PROFILES)


def test_a_plain_login_gets_the_default_profile() -> None:
    got = granted()
    assert (got.profile, got.scope, got.request, got.name) == (PROFILES["default"], "connection", SHELL, None)
    assert got.environment == {}


def test_a_sandbox_that_the_gateway_named_has_no_home() -> None:
    """Nobody comes back to that name."""
    identity = Identity(LoginName("bob", name="web-0123456789"), "web-link", "", "192.0.2.1")
    got = grant(identity, SHELL, {"default": Profile(home=Home())})
    assert (got.scope, got.profile) == ("named", Profile())
    own = Identity(LoginName("bob", name="web-012345678"), "web-link", "", "192.0.2.1")
    assert grant(own, SHELL, {"default": Profile(home=Home())}).profile.home == Home()


@pytest.mark.parametrize("login", ["alice+gpu", "team-7+gpu"])
def test_a_profile_is_for_those_it_allows(login: str) -> None:
    got = granted(login)
    assert (got.profile.name, got.scope) == ("gpu", "channel")


@pytest.mark.parametrize(
    ("login", "sentence"),
    [
        ("bob+gpu", "there is no profile 'gpu' for you, yours are: default."),
        ("bob+other", "there is no profile 'other' for you, yours are: default."),
        ("alice+closed", "yours are: default, gpu."),
        ("Alice+gpu", "yours are: default."),
    ],
)
def test_other_profiles_are_denied_as_if_they_were_not_there(login: str, sentence: str) -> None:
    with pytest.raises(Denied) as denied:
        granted(login)
    assert sentence in str(denied.value)


def test_who_has_no_profile_learns_whom_to_ask() -> None:
    identity = Identity(LoginName("bob"), "publickey", "SHA256:x", "192.0.2.1")
    with pytest.raises(Denied, match="you have none; ask your operator"):
        grant(identity, SHELL, {"closed": PROFILES["closed"]})


def test_the_environment_chooses_where_the_login_name_does_not() -> None:
    request = Request(Shell(), environment={"SSHGATE_PROFILE": b"gpu", "SSHGATE_NAME": b"train", "LANG": b"C"})
    got = granted("alice", request)
    assert (got.profile.name, got.name, got.scope) == ("gpu", "train", "named")
    assert got.request.environment == {"LANG": b"C"}
    got = granted("alice+default=other", request)
    assert (got.profile.name, got.name) == ("default", "other")


@pytest.mark.parametrize("name", [b"Bad", b"a/b", b"x" * 41, b"\xff", b"-"])
def test_a_bad_name_in_the_environment_is_denied(name: bytes) -> None:
    with pytest.raises(Denied, match="SSHGATE_NAME is not a sandbox name"):
        granted("alice", Request(Shell(), environment={"SSHGATE_NAME": name}))


def test_a_bad_profile_in_the_environment_is_denied_without_echoing_controls() -> None:
    with pytest.raises(Denied) as denied:
        granted("alice", Request(Shell(), environment={"SSHGATE_PROFILE": b"\x1b[2J\xff"}))
    assert str(denied.value).isprintable()


def test_a_name_makes_the_scope_named() -> None:
    assert granted("bob=work").scope == "named"
    assert granted("alice+gpu=train").scope == "named"


@pytest.mark.parametrize(
    ("asks", "original"),
    [
        (Shell(), {}),
        (Exec(b"rm -rf /\xff"), {"SSH_ORIGINAL_COMMAND": b"rm -rf /\xff"}),
        (Subsystem("sftp"), {"SSH_ORIGINAL_COMMAND": b"/usr/lib/openssh/sftp-server"}),
        (Subsystem("token"), {"SSH_ORIGINAL_COMMAND": b"token"}),
    ],
)
def test_a_forced_command_replaces_whatever_is_asked(
    asks: Shell | Exec | Subsystem, original: dict[str, bytes]
) -> None:
    got = granted(request=Request(asks, Terminal()), restrictions=Restrictions(command=b"backup"))
    assert got.request.kind == Exec(b"backup")
    assert got.request.terminal == Terminal()
    assert got.environment == original


def test_a_key_without_a_terminal_gets_pipes() -> None:
    assert (
        granted(request=Request(Shell(), Terminal()), restrictions=Restrictions(terminal=False)).request.terminal
        is None
    )


def test_the_keys_environment_is_set() -> None:
    keys = Restrictions(command=b"x", environment={"A": b"1", "SSH_ORIGINAL_COMMAND": b"mine"})
    assert granted(request=Request(Exec(b"y")), restrictions=keys).environment == {
        "A": b"1",
        "SSH_ORIGINAL_COMMAND": b"mine",
    }


def test_a_client_cannot_replace_what_the_key_sets() -> None:
    keys = Restrictions(command=b"x", environment={"GIT_DIR": b"/srv"})
    theirs = {"GIT_DIR": b"/tmp", "SSH_ORIGINAL_COMMAND": b"lie", "LANG": b"C"}
    got = granted(request=Request(Exec(b"y"), environment=theirs), restrictions=keys)
    assert got.request.environment == {"LANG": b"C"}
    assert got.environment == {"GIT_DIR": b"/srv", "SSH_ORIGINAL_COMMAND": b"y"}


def test_a_named_sandbox_keeps_its_profile_for_who_does_not_say_which() -> None:
    def granted_to(login: str, known: str | None) -> Grant:
        identity = Identity(LoginName.parse(login), "publickey", "SHA256:x", "192.0.2.1")
        return grant(identity, SHELL, PROFILES, lambda name: known)

    kept = granted_to("alice=train", "gpu")
    assert (kept.profile.name, kept.scope, kept.chosen) == ("gpu", "named", False)
    assert (granted_to("alice+default=train", "gpu").profile.name, granted_to("alice", "gpu").profile.name) == (
        "default",
        "default",
    )
    # One that is configured no longer: whoever joins gets the default's clocks.
    assert granted_to("alice=train", "gone").profile.name == "default"
    with pytest.raises(Denied, match="no profile 'gpu' for you"):
        granted_to("bob=train", "gpu")


def test_a_client_chooses_no_sandbox_of_a_forced_command_by_a_variable() -> None:
    theirs = {"SSHGATE_PROFILE": b"gpu", "SSHGATE_NAME": b"other", "LANG": b"C"}
    got = granted("alice", Request(Exec(b"y"), environment=theirs), Restrictions(command=b"x"))
    assert (got.profile.name, got.name, got.request.environment) == ("default", None, {"LANG": b"C"})
    # The login name may: it is what sshd knows as the account.
    got = granted("alice=repo", Request(Exec(b"y"), environment=theirs), Restrictions(command=b"x"))
    assert (got.profile.name, got.name) == ("default", "repo")


def test_a_key_can_be_for_one_sandbox() -> None:
    keys = Restrictions(environment={"SSHGATE_NAME": b"repo", "SSHGATE_PROFILE": b"gpu"})
    request = Request(Shell(), environment={"SSHGATE_NAME": b"other", "SSHGATE_PROFILE": b"default"})
    for login in ("alice", "alice=repo", "alice+gpu"):
        got = granted(login, request, keys)
        assert (got.profile.name, got.name) == ("gpu", "repo")
    with pytest.raises(Denied, match="your key is for 'repo' only"):
        granted("alice=other", request, keys)
    with pytest.raises(Denied, match="your key is for 'gpu' only"):
        granted("alice+default", request, keys)


def test_internal_sftp_is_the_file_server_and_nothing_else() -> None:
    def forced(command: bytes, asks: Shell | Exec | Subsystem) -> Shell | Exec | Subsystem:
        return granted(request=Request(asks), restrictions=Restrictions(command=command)).request.kind

    assert forced(b"internal-sftp", Subsystem("sftp")) == Subsystem("sftp")
    assert forced(b"internal-sftp  -R -d /srv", Subsystem("sftp")) == Subsystem("sftp", (b"-R", b"-d", b"/srv"))
    assert forced(b"internal-sftp-x", Subsystem("sftp")) == Exec(b"internal-sftp-x")
    for asks in (Shell(), Exec(b"internal-sftp"), Subsystem("token")):
        with pytest.raises(Denied, match="your key is for sftp only"):
            forced(b"internal-sftp", asks)
