"""Who may log in: keys, certificates, names, and what everybody else is told."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest
from asyncssh.constants import MSG_USERAUTH_BANNER, MSG_USERAUTH_FAILURE
from asyncssh.packet import NameList
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sshgate.access.authorized_keys import Keyring
from sshgate.access.identity import Restrictions
from sshgate.config.model import Access, Limits, Ssh
from sshgate.ssh.authentication import Authentication
from sshgate.ssh.certificates import Proof
from sshgate.stream.interfaces import Exec
from tests.hostile.front_door import FrontDoor, front_door, make_config, make_key
from tests.hostile.peer import peer
from tests.hostile.polling import until

REFUSED = b"Permission denied (publickey)."


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[FrontDoor]:
    async with front_door(tmp_path) as opened:
        yield opened


def allow(door: FrontDoor, text: str, user: str = "user") -> None:
    """Replace a user's authorized keys."""
    (door.place / "users" / user).write_text(text + "\n")


def fingerprint(key: Path) -> str:
    """What ssh-keygen says of a key."""
    return subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True).stdout.split()[1]


def public(door: FrontDoor) -> str:
    return Path(f"{door.key}.pub").read_text().strip()


async def test_identity_says_who_how_and_from_where(door: FrontDoor) -> None:
    await door.ssh("true", user="user+gpu=work")
    identity = door.programs.logins[0].identity
    output = fingerprint(door.key)
    assert str(identity.login) == "user+gpu=work"
    assert (identity.method, identity.fingerprint) == ("publickey", output)
    assert (identity.source, identity.server, identity.server_port) == ("127.0.0.1", "127.0.0.1", door.port)
    assert identity.source_port > 0


@pytest.mark.parametrize(
    ("kind", "bits"), [("ed25519", ()), ("ecdsa", ()), ("ecdsa", ("-b", "521")), ("rsa", ("-b", "2048"))]
)
async def test_every_usual_kind_of_key_logs_in(door: FrontDoor, kind: str, bits: tuple[str, ...]) -> None:
    allow(door, make_key(door.place / "other", kind, *bits))
    result = await door.ssh("exit 4", options=["-i", str(door.place / "other")])
    assert result.status == 4


async def test_rsa_signature_over_sha1_is_refused(door: FrontDoor) -> None:
    allow(door, make_key(door.place / "other", "rsa", "-b", "2048"))
    options = ["-i", str(door.place / "other"), "-o", "PubkeyAcceptedAlgorithms=ssh-rsa"]
    assert (await door.ssh("true", options=options)).status == 255
    # This client signs with SHA-1 although the server has said that it will not have it.
    with pytest.raises((asyncssh.PermissionDenied, asyncssh.ConnectionLost)):
        await asyncssh.connect(
            "127.0.0.1", door.port, username="user", client_keys=[str(door.place / "other")], known_hosts=None,
            config=None, agent_path=None, signature_algs=["ssh-rsa"],
        )  # fmt: skip
    assert not door.programs.logins


NAMES = [
    b"", b"nobody", b"root", b"x" * 300, b"x" * 3000, b"../x", b"$(x)", b"a\nb", b"user\0", b"\0", b"\xff\xfe",
    "us\u0435r".encode(), "user\u00ad".encode(), "use\uff52".encode(), b".", b"-x", b"us er", b"User", b"user+",
    b"user=", b"user+A", b"user=a=b=c", b"user+a+b",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
async def test_every_other_name_gets_the_same_answer(door: FrontDoor, name: bytes) -> None:
    key = asyncssh.read_private_key(door.key)
    async with peer(door.port) as client:
        await client.begin_login()
        client.ask_login(name, b"publickey", *client.signed(key, name))
        if b"+" in name or b"=" in name:  # explained by its form, for any user alike
            assert (await client.hear())[0] == MSG_USERAUTH_BANNER
        assert await client.hear() == (MSG_USERAUTH_FAILURE, NameList([b"publickey"]) + b"\0")
        assert not client.lost.is_set()
    assert not door.programs.logins


async def test_wrong_key_gets_the_same_answer(door: FrontDoor) -> None:
    make_key(door.place / "other")
    options = ["-i", str(door.place / "other")]
    (door.place / "id").rename(door.place / "gone")
    result = await door.ssh("true", options=options)
    assert result.err.endswith(b"user@127.0.0.1: " + REFUSED + b"\r\n")


async def test_unknown_users_and_wrong_keys_cost_the_same(door: FrontDoor) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")

    async def refusal(name: str) -> float:
        begun = time.process_time()
        with pytest.raises(asyncssh.PermissionDenied):
            await asyncssh.connect(
                "127.0.0.1", door.port, username=name, client_keys=[key], known_hosts=None, config=None, agent_path=None
            )
        return time.process_time() - begun

    times: dict[str, list[float]] = {"user": [], "nobody": [], "../bad": []}
    for _ in range(15):
        for name, taken in times.items():
            taken.append(await refusal(name))
    cheapest = [min(taken) for taken in times.values()]  # without what a busy machine adds
    assert max(cheapest) < 1.5 * min(cheapest) + 0.005


async def test_nobody_gets_in_while_no_key_is_configured(tmp_path: Path) -> None:
    async with front_door(tmp_path) as door:
        (tmp_path / "users" / "user").unlink()
        for user in ("user", "nobody", "root"):
            assert (await door.ssh("true", user=user)).status == 255
        assert not door.programs.logins


async def test_options_of_the_key_reach_the_policy(door: FrontDoor) -> None:
    allow(door, f'command="echo forced",no-pty,environment="A=b" {public(door)}')
    assert b"PTY allocation request failed" in (await door.ssh("echo mine", options=["-tt"])).err
    assert (await door.ssh("echo mine")).out == b"forced\n"
    limits = door.programs.logins[0].identity.restrictions
    assert (limits.command, limits.terminal, limits.environment) == (b"echo forced", False, {"A": b"b"})
    # The request is told as it was asked.
    assert door.programs.logins[1].requests[0].kind == Exec(b"echo mine")


async def test_key_for_another_address_is_refused(door: FrontDoor) -> None:
    allow(door, f'from="10.0.0.1" {public(door)}')
    assert (await door.ssh("true")).status == 255


class Authority:
    """A certificate authority and what it signs."""

    def __init__(self, place: Path, kind: str = "ed25519") -> None:
        self.place = place
        self.public = make_key(place / "ca", kind)

    def sign(self, *more: str, principals: str = "user", key: str = "id") -> None:
        names = ["-n", principals] if principals else []
        subprocess.run(
            ["ssh-keygen", "-q", "-s", self.place / "ca", "-I", "who", *names, *more, self.place / f"{key}.pub"],
            check=True,
        )


@pytest.fixture
async def certified(tmp_path: Path) -> AsyncIterator[tuple[FrontDoor, Authority]]:
    """A door that knows an authority, and no key of its user."""
    authority = Authority(tmp_path)
    (tmp_path / "user_ca.pub").write_text(authority.public + "\n")
    async with front_door(tmp_path, access=Access(user_ca=tmp_path / "user_ca.pub")) as door:
        (tmp_path / "users" / "user").unlink()
        yield door, authority


async def test_certificate_logs_in_its_principal(certified: tuple[FrontDoor, Authority]) -> None:
    door, authority = certified
    assert (await door.ssh("true")).status == 255
    authority.sign()
    assert (await door.ssh("exit 4", user="user+gpu=work")).status == 4
    identity = door.programs.logins[0].identity
    assert (identity.method, str(identity.login)) == ("certificate", "user+gpu=work")
    assert identity.restrictions == Restrictions()
    assert (await door.ssh("true", user="other")).status == 255


@pytest.mark.parametrize(
    ("principals", "more"),
    [
        ("", ()),
        ("other", ()),
        ("user", ("-V", "-2d:-1d")),
        ("user", ("-V", "+1d:+2d")),
        ("user", ("-h",)),
        ("user", ("-O", "source-address=10.0.0.0/8")),
        ("user", ("-O", "critical:unheard-of=x")),
    ],
)
async def test_certificate_that_does_not_hold_is_refused(
    certified: tuple[FrontDoor, Authority], principals: str, more: tuple[str, ...]
) -> None:
    door, authority = certified
    authority.sign(*more, principals=principals)
    result = await door.ssh("true")
    assert (result.status, REFUSED in result.err) == (255, True)


async def test_certificate_that_its_authority_signed_with_sha1_is_refused(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path, "rsa")
    (tmp_path / "user_ca.pub").write_text(authority.public + "\n")
    async with front_door(tmp_path, access=Access(user_ca=tmp_path / "user_ca.pub")) as door:
        (tmp_path / "users" / "user").unlink()
        for algorithm, status in (("rsa-sha2-512", 4), ("rsa-sha2-256", 4), ("ssh-rsa", 255)):
            authority.sign("-t", algorithm)
            assert (await door.ssh("exit 4")).status == status, algorithm


async def test_certificate_for_a_key_that_would_not_do_by_itself_is_refused(
    certified: tuple[FrontDoor, Authority], tmp_path: Path
) -> None:
    door, authority = certified
    weak = rsa.generate_private_key(65537, 1024).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    (tmp_path / "weak").touch(mode=0o600)
    (tmp_path / "weak").write_bytes(weak)
    public = asyncssh.read_private_key(tmp_path / "weak").export_public_key()
    (tmp_path / "weak.pub").write_bytes(public)
    authority.sign(key="weak")
    options = ["-i", str(tmp_path / "weak"), "-o", "RequiredRSASize=1024"]
    assert (await door.ssh("true", options=options)).status == 255
    assert not door.programs.logins


async def test_certificate_of_another_authority_is_refused(
    certified: tuple[FrontDoor, Authority], tmp_path: Path
) -> None:
    door, authority = certified
    make_key(tmp_path / "ca2")
    (tmp_path / "ca").unlink()
    (tmp_path / "ca2").rename(tmp_path / "ca")
    (tmp_path / "ca2.pub").rename(tmp_path / "ca.pub")
    authority.sign()
    assert (await door.ssh("true")).status == 255


async def test_limits_of_the_certificate_reach_the_policy(certified: tuple[FrontDoor, Authority]) -> None:
    door, authority = certified
    authority.sign("-O", "clear", "-O", "force-command=echo forced", "-O", "source-address=127.0.0.0/8")
    assert b"PTY allocation request failed" in (await door.ssh("echo mine", options=["-tt"])).err
    assert (await door.ssh("echo mine")).out == b"forced\n"
    limits = door.programs.logins[0].identity.restrictions
    assert limits == Restrictions(command=b"echo forced", terminal=False, port_forwarding=False, agent_forwarding=False)


async def test_certificate_and_its_authority_cannot_force_different_commands(door: FrontDoor) -> None:
    authority = Authority(door.place)
    line = 'cert-authority,principals="user",command="echo signer" ' + authority.public
    allow(door, line)
    authority.sign("-O", "force-command=echo own")
    assert (await door.ssh("true")).status == 255
    authority.sign("-O", "force-command=echo signer")
    assert (await door.ssh("true")).out == b"signer\n"


async def test_connection_ends_after_the_last_attempt(tmp_path: Path) -> None:
    async with front_door(tmp_path, limits=Limits(auth_attempts=3)) as door:
        wrong: list[str] = []
        for number in range(5):
            make_key(tmp_path / f"wrong{number}")
            wrong += ["-i", str(tmp_path / f"wrong{number}")]
        result = await door.ssh("true", options=wrong)
        assert b"Too many authentication failures" in result.err
        assert (await door.ssh("exit 4", options=wrong[:4])).status == 4


async def test_connections_of_one_user_are_limited_and_the_client_reads_why(tmp_path: Path) -> None:
    async with front_door(tmp_path, limits=Limits(connections_per_source=2)) as door:
        clients = [await door.start("cat") for _ in range(2)]
        await until(lambda: len(door.programs.logins) == 2)
        refused = await door.ssh("true")
        assert refused.status == 255
        assert b"you have already 2 connections from 127.0.0.1" in refused.err
        assert b"limits.connections_per_source" in refused.err
        await clients[0].communicate(b"")
        await until(lambda: door.admission.connections == 1)
        assert (await door.ssh("exit 4")).status == 4


async def test_silence_is_cut_after_the_grace_time(tmp_path: Path) -> None:
    async with front_door(tmp_path, ssh=Ssh(login_grace=0.3)) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        async with asyncio.timeout(3):
            assert (await reader.read()).startswith(b"SSH-2.0-OpenSSH_sshgate_")
        writer.close()
        assert door.admission.connections == 0


def test_a_proof_that_cannot_be_looked_up_ends_nothing_and_opens_nothing(tmp_path: Path) -> None:
    config, proof, broken = make_config(tmp_path), Proof("publickey", "", Restrictions()), False

    def ask(user: str, now: float) -> Proof | None:
        if broken:
            raise RuntimeError("broken")
        return proof

    login = Authentication(config, Keyring(config.access.authorized_keys, None))
    login.begin_auth("user")
    assert login._proven(ask)
    assert login.still_proven()
    broken = True
    assert login.still_proven(at=time.time())
    assert not login.still_proven()
    assert not login._proven(ask)
