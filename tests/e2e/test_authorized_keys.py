"""Options of authorized_keys lines and certificates, as OpenSSH's own tools make them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rig.gateway import Gateway
from tests.rig.ssh import Ended, Ssh, make_key

pytestmark = pytest.mark.local


@dataclass
class Door:
    """A gateway with one user, whose authorized_keys file the tests write."""

    gateway: Gateway
    ssh: Ssh

    def allow(self, options: str = "", key: Path | None = None) -> None:
        """The file's one line: the user's key (or ``key``) with these options. Read again at the next login."""
        public = Path(f"{key or self.ssh.key}.pub").read_text()
        (self.gateway.users / "dev").write_text(f"{options} {public}".lstrip())

    def run(self, command: str, *options: str) -> Ended:
        return self.ssh.run(command, options=options)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The private key of a certificate authority."""
    path = tmp_path_factory.mktemp("authority") / "ca"
    make_key(path)
    return path


@pytest.fixture(scope="module")
def served(
    make_gateway: Callable[..., Gateway], local: None, user_at: Callable[[Gateway], Ssh], authority: Path
) -> Door:
    gateway = make_gateway("local", access={"user_ca": f"{authority}.pub"})
    return Door(gateway, user_at(gateway))


@pytest.fixture
def door(served: Door) -> Iterator[Door]:
    served.allow()
    yield served
    (served.ssh.place / "id-cert.pub").unlink(missing_ok=True)


def sign(authority: Path, key: Path, *options: str, principals: str | None = "dev") -> None:
    """A certificate for the key, beside it, where ssh finds it."""
    names = ["-n", principals] if principals else []
    subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "test", *names, *options, f"{key}.pub"], check=True)


def test_a_key_that_is_taken_out_stops_working_at_once(door: Door) -> None:
    assert door.run("exit 3").status == 3
    (door.gateway.users / "dev").write_text("# nobody\n")
    assert door.run("exit 3").status == 255
    door.allow()
    assert door.run("exit 3").status == 3


def test_command_replaces_what_was_asked(door: Door) -> None:
    door.allow('command="echo forced: $SSH_ORIGINAL_COMMAND; exit 6"')
    ended = door.run("rm -rf /")
    assert (ended.status, ended.out) == (6, b"forced: rm -rf /\n")


def test_environment_reaches_the_program(door: Door) -> None:
    door.allow('environment="PROJECT=a b",environment="STAGE=test"')
    assert door.run('echo "$PROJECT-$STAGE"').out == b"a b-test\n"


@pytest.mark.parametrize("option", ["no-pty", "restrict"])
def test_no_terminal_for_a_restricted_key(door: Door, option: str) -> None:
    door.allow(option)
    assert b"PTY allocation request failed" in door.run("tty", "-tt").err
    assert b"not a tty" in door.run("tty").out
    door.allow(f"{option},pty" if option == "restrict" else "")
    assert b"/dev/pts" in door.run("tty", "-tt").out


@pytest.mark.parametrize(
    ("source", "status"),
    [("127.0.0.1", 3), ("127.0.0.0/8", 3), ("10.0.0.0/8", 255), ("!127.0.0.1,*", 255), ("192.0.2.1,127.*", 3)],
)
def test_from_limits_the_source(door: Door, source: str, status: int) -> None:
    door.allow(f'from="{source}"')
    assert door.run("exit 3").status == status


def test_an_expired_line_is_no_line(door: Door) -> None:
    door.allow('expiry-time="20200101"')
    assert door.run("exit 3").status == 255
    door.allow('expiry-time="20990101"')
    assert door.run("exit 3").status == 3


def test_an_unknown_option_closes_the_line_not_the_door(door: Door) -> None:
    door.allow("be-generous")
    assert door.run("exit 3").status == 255


def test_a_certificate_of_the_configured_authority_lets_its_principals_in(door: Door, authority: Path) -> None:
    (door.gateway.users / "dev").unlink()
    assert door.run("exit 3").status == 255
    sign(authority, door.ssh.key)
    assert door.run("exit 3").status == 3
    assert door.ssh.as_user("other").run("exit 3").status == 255


def test_a_certificate_must_be_valid_now(door: Door, authority: Path) -> None:
    (door.gateway.users / "dev").unlink()
    sign(authority, door.ssh.key, "-V", "20200101:20200102")
    assert door.run("exit 3").status == 255


def test_a_certificate_without_principals_lets_nobody_in(door: Door, authority: Path) -> None:
    (door.gateway.users / "dev").unlink()
    sign(authority, door.ssh.key, principals=None)
    assert door.run("exit 3").status == 255


def test_a_certificate_of_a_stranger_lets_nobody_in(door: Door, tmp_path: Path) -> None:
    (door.gateway.users / "dev").unlink()
    make_key(tmp_path / "ca")
    sign(tmp_path / "ca", door.ssh.key)
    assert door.run("exit 3").status == 255


def test_a_certificates_own_limits_hold(door: Door, authority: Path) -> None:
    (door.gateway.users / "dev").unlink()
    sign(authority, door.ssh.key, "-O", "force-command=echo only this")
    assert door.run("echo that").out == b"only this\n"
    sign(authority, door.ssh.key, "-O", "source-address=10.0.0.0/8")
    assert door.run("exit 3").status == 255
    sign(authority, door.ssh.key, "-O", "no-pty")
    assert b"PTY allocation request failed" in door.run("tty", "-tt").err


def test_an_authority_of_one_user_with_principals(door: Door, tmp_path: Path) -> None:
    make_key(tmp_path / "ca")
    door.allow('cert-authority,principals="deploy,build"', tmp_path / "ca")
    assert door.run("exit 3").status == 255
    sign(tmp_path / "ca", door.ssh.key, principals="build")
    assert door.run("exit 3").status == 3
    sign(tmp_path / "ca", door.ssh.key, principals="dev")
    assert door.run("exit 3").status == 255
