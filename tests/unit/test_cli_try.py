"""What `sshgate try` makes before it serves, and what it prints."""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from sshgate.access.authorized_keys import Keyring
from sshgate.access.identity import Restrictions
from sshgate.cli import try_
from sshgate.config.model import Address
from sshgate.errors import ConfigError


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of keys after the first start. An RSA key takes a second."""
    directory = tmp_path_factory.mktemp("trial") / "keys"
    try_.prepare(2222, directory)
    return directory


def blob_of(line: str) -> bytes:
    return base64.b64decode(line.split()[1])


def public_half(private: Path) -> str:
    return subprocess.run(["ssh-keygen", "-y", "-f", private], check=True, capture_output=True, text=True).stdout


def test_the_settings_are_for_this_machine_only(keys: Path) -> None:
    config = try_.prepare(4321, keys)
    assert config.ssh.listen == Address("127.0.0.1", 4321)
    assert config.sandbox.provider == "local"
    assert {name: profile.scope for name, profile in config.profiles.items()} == {
        "default": "connection",
        "fresh": "channel",
    }


def test_keys_are_private(keys: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in keys.rglob("*") if path.name != "known_hosts"}
    assert modes["users"] == modes["host"] == keys.stat().st_mode & 0o777 == 0o700
    assert modes["dev_ed25519"] == modes["dev"] == modes["ssh_host_ed25519_key"] == 0o600


def test_the_development_key_opens(keys: Path) -> None:
    blob = blob_of(public_half(keys / "dev_ed25519"))
    assert Keyring(keys / "users", None).key("dev", blob, "127.0.0.1", 0) == Restrictions()


def test_a_file_of_keys_in_another_encoding_is_added_to(tmp_path: Path) -> None:
    file = tmp_path / "dev"
    file.write_bytes(b"# caf\xe9")
    try_._authorize(file, "ssh-ed25519 AAAA comment\n")
    try_._authorize(file, "ssh-ed25519 AAAA comment\n")
    assert file.read_bytes() == b"# caf\xe9\nssh-ed25519 AAAA comment\n"


def test_known_hosts_hold_every_host_key_for_any_port(keys: Path) -> None:
    for port in ("2222", "50022"):
        found = subprocess.run(
            ["ssh-keygen", "-F", f"[127.0.0.1]:{port}", "-f", keys / "known_hosts"],
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [line for line in found.stdout.splitlines() if not line.startswith("#")]
        made = {blob_of(path.read_text()) for path in (keys / "host").glob("*.pub")}
        assert {blob_of(line.split(" ", 1)[1]) for line in lines} == made
        assert len(made) == 2


def test_a_second_start_changes_nothing_but_the_host_keys_that_are_known(keys: Path) -> None:
    before = {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}
    (keys / "known_hosts").write_text("stale\n")
    try_.prepare(2222, keys)
    assert {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()} == before


def test_keys_that_are_there_are_kept(keys: Path, tmp_path: Path) -> None:
    mine = tmp_path / "keys"
    shutil.copytree(keys, mine)
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "own"], check=True)
    shutil.copy(tmp_path / "own", mine / "dev_ed25519")
    other = (mine / "users" / "dev").read_text()
    (mine / "users" / "dev").write_text(f"no-pty {other.rstrip()}")
    try_.prepare(2222, mine)
    lines = (mine / "users" / "dev").read_text().splitlines()
    assert lines[0] == f"no-pty {other.rstrip()}"
    assert blob_of(lines[1]) == blob_of((tmp_path / "own.pub").read_text())


def test_a_key_that_cannot_be_used_is_one_sentence(keys: Path, tmp_path: Path) -> None:
    mine = tmp_path / "keys"
    shutil.copytree(keys, mine)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", mine / "dev_ed25519"], check=True)
    with pytest.raises(ConfigError, match="dev_ed25519: not a private key, or one with a passphrase"):
        try_.prepare(2222, mine)
    (mine / "dev_ed25519").write_text("rubbish")
    with pytest.raises(ConfigError, match="move it away"):
        try_.prepare(2222, mine)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose another directory with --keys"):
        try_.prepare(2222, tmp_path / "file" / "keys")


LINK = "http://127.0.0.1:31000/#login=x"


def test_the_line_to_paste() -> None:
    options = "-i keys/dev_ed25519 -o IdentitiesOnly=yes -o UserKnownHostsFile=keys/known_hosts"
    text = try_.instructions(2222, Path("keys"), LINK)
    assert f"\n  ssh -p 2222 {options} dev@127.0.0.1\n" in text
    assert f"\n  sftp -P 2222 {options} dev@127.0.0.1\n" in text


def test_the_lines_for_the_clients_configuration(tmp_path: Path) -> None:
    text = try_.instructions(2222, tmp_path / "my keys", LINK)
    block = text[text.index("  Host sandbox") : text.index("Ctrl-C")]
    (tmp_path / "config").write_text(block)
    shown = subprocess.run(
        ["ssh", "-G", "-F", tmp_path / "config", "sandbox"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    wanted = {"user dev=work", "hostname 127.0.0.1", "port 2222", f"identityfile {tmp_path}/my keys/dev_ed25519"}
    assert wanted <= set(shown)


@pytest.mark.parametrize("name", ["keys", "my keys", "100%", "~keys", "k'eys", "k#eys", 'k"eys', "k\\eys", "a/b c"])
@pytest.mark.parametrize("absolute", [True, False])
def test_the_line_to_paste_survives_odd_directories(name: str, absolute: bool, tmp_path: Path) -> None:
    """ssh itself says which files it would use."""
    directory = tmp_path / name if absolute else Path(name)
    (tmp_path / name).mkdir(parents=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name / "dev_ed25519"], check=True)
    line = next(line for line in try_.instructions(22, directory, LINK).splitlines() if line.startswith("  ssh "))
    words = shlex.split(line)
    shown = subprocess.run(
        [words[0], "-G", "-F", "none", *words[1:]], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    options = [option.split(" ", 1) for option in shown.splitlines()]
    for option, file in (("identityfile", "dev_ed25519"), ("userknownhostsfile", "known_hosts")):
        paths = [tmp_path / value.replace("%%", "%") for name, value in options if name == option]
        assert paths == [tmp_path / name / file]


def test_the_keys_of_models_that_are_found_are_offered_and_named(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = {"ANTHROPIC_API_KEY": "sk-ant-oat01-x", "OPENAI_API_KEY": "", "GEMINI_API_KEY": "", "GOOGLE_API_KEY": "g"}
    for name, text in sent.items():
        monkeypatch.setenv(name, text)
    config, text = try_.offer_models(try_.prepare(2222, keys))
    assert config.profiles["default"].models == ("gemini",)
    assert "GOOGLE_API_KEY: agents" in text
    assert "ANTHROPIC_API_KEY: a claude.ai subscription's token is not taken" in text
    assert "claude`" not in text
    assert not set(sent) & set(os.environ)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-api03-x")
    assert "`claude` starts without a question" in try_.offer_models(try_.prepare(2222, keys))[1]
