"""The commands as people type them: words, exit statuses, and no tracebacks."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sshgate import __version__

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "sshgate.example.yaml"


def sshgate(*words: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; a traceback fails the test whatever it expects."""
    ran = subprocess.run(
        [sys.executable, "-m", "sshgate", *words],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/bin:/usr/bin"},
    )  # fmt: skip
    assert "Traceback" not in ran.stderr
    return ran


def write(directory: Path, text: str) -> Path:
    path = directory / "gate.yaml"
    path.write_text(text)
    return path


def test_version() -> None:
    assert sshgate("--version").stdout == sshgate("-V").stdout == f"sshgate {__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["serve", "--help"], ["try", "-h"], ["check-config", "-h"]])
def test_help_is_there_for_every_command(words: list[str]) -> None:
    ran = sshgate(*words)
    assert ran.returncode == 0
    assert len(ran.stdout) > 300


def test_help_names_every_command() -> None:
    assert {"serve", "try", "check-config"} <= set(sshgate("--help").stdout.split())


@pytest.mark.parametrize(
    "words", [["frobnicate"], ["serve", "--port", "1"], ["try", "--port", "70000"], ["check-config"]]
)
def test_what_is_no_command_ends_with_2(words: list[str]) -> None:
    ran = sshgate(*words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Usage:" in ran.stderr


def test_a_good_file_is_fine() -> None:
    ran = sshgate("check-config", EXAMPLE)
    assert ran.returncode == 0
    assert ran.stdout == f"{EXAMPLE}: fine. kubernetes sandboxes, listening on 0.0.0.0:2222, profiles: default\n"


def test_a_file_without_keys_is_fine_and_says_what_is_missing(tmp_path: Path) -> None:
    ran = sshgate("check-config", write(tmp_path, "log: {level: info}\n"))
    assert ran.returncode == 0
    assert (
        f"nobody can log in yet: copy a user's .pub file to {tmp_path}/keys/users/USER, USER being the login."
        in ran.stderr
    )


@pytest.mark.parametrize("command", [["check-config"], ["serve", "--config"]])
def test_a_bad_file_ends_with_2_and_a_line_for_each_mistake(command: list[str], tmp_path: Path) -> None:
    path = write(tmp_path, "shh: {}\nlimits:\n  sandboxes: many\n")
    ran = sshgate(*command, path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.splitlines() == [
        f"{path}:1: shh: unknown key; did you mean 'ssh'?",
        f"{path}:3: limits.sandboxes: expected a whole number, found many (a text).",
    ]


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    ran = sshgate("serve", cwd=tmp_path)
    assert ran.returncode == 2
    assert (
        ran.stderr == "sshgate.yaml: cannot be read: No such file or directory; sshgate.example.yaml shows the form.\n"
    )


def test_checks_and_help_do_not_load_the_gateway(tmp_path: Path) -> None:
    """They are asked in scripts and init containers, again and again. Only keys, where there are any, are looked at."""
    script = (
        "import sys; from sshgate.cli.main import main; main(['check-config', sys.argv[1]], standalone_mode=False);"
        "print([name for name in ('asyncssh', 'kubernetes_asyncio', 'aiohttp', 'cryptography') if name in sys.modules])"
    )
    # Away from its directory, which may hold keys: the file's paths begin there.
    command = [sys.executable, "-c", script, shutil.copy(EXAMPLE, tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_a_copy_by_ssh_loads_neither_the_gateway_nor_the_client_of_the_cluster() -> None:
    """It would be most of a small copy's time."""
    script = (
        "import sys; from sshgate.transfer import command, copying, python_peer, tar_peer;"
        "print([name for name in ('asyncssh', 'kubernetes_asyncio', 'aiohttp', 'cryptography') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = sshgate("try", "--port", str(port), cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"sshgate: port {port} of 127.0.0.1 is taken by another program; try another one: ")
    assert ran.stderr.count("\n") == 1
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("ssh: {listen: '%s'}\nsandbox: {provider: local}\n", "ssh.listen"),
        ("ssh: {listen: '%s'}\nworkers: 2\n", "ssh.listen"),
        ("ssh: {listen: '127.0.0.1:0'}\nsandbox: {provider: local}\nweb: {listen: '%s'}\n", "web.listen"),
        (
            "ssh: {listen: '127.0.0.1:0'}\nsandbox: {provider: local}\ntelemetry: {listen: '%s'}\n",
            "telemetry.listen",
        ),
    ],
)
def test_a_gateway_whose_port_is_taken_cannot_start(tmp_path: Path, text: str, setting: str) -> None:
    """The settings are valid: status 1, as for all that may be otherwise at the next start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = sshgate("serve", "--config", write(tmp_path, text % address), cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        f"sshgate: cannot listen on {address}: another program does already; choose another port in {setting}."
    )


def test_an_error_of_the_system_names_its_own_place_and_not_the_listener(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from sshgate.server.app import run
from sshgate.config.model import Access, Address, Config, Log, SandboxPlace, Ssh
place = Path({str(tmp_path)!r})
config = Config(ssh=Ssh(listen=Address("127.0.0.1", 0), host_keys=place / "host"), access=Access(place / "users"),
                sandbox=SandboxPlace(provider="local"), log=Log(format="json"))
raise SystemExit(run(config, on_ready=lambda frontends: (place / "missing" / "file").touch()))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == f"sshgate: No such file or directory: {tmp_path}/missing/file."


def passwd(directory: Path, typed: bytes, before: bytes = b"", *more: str) -> subprocess.CompletedProcess[bytes]:
    file = write(directory, "web: {listen: '127.0.0.1:0', users_file: users}\n")
    if before:
        (directory / "users").write_bytes(before)
    ran = subprocess.run(
        [sys.executable, "-m", "sshgate", "passwd", "alice", "-c", file, *more],
        input=typed, capture_output=True, timeout=60, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/bin:/usr/bin", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert b"Traceback" not in ran.stderr
    assert ran.stderr.count(b"\n") == 1
    return ran


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (b"short\n", b"10 to 1024 characters"),
        (b"", b"10 to 1024 characters"),
        (b"x" * 1025 + b"\n", b"10 to 1024 characters"),
        (b"caf\xe9 au lait\n", b"UTF-8 text"),
    ],
)
def test_a_password_that_no_login_could_have_is_refused(tmp_path: Path, typed: bytes, sentence: bytes) -> None:
    ran = passwd(tmp_path, typed)
    assert ran.returncode == 2
    assert sentence in ran.stderr
    assert not (tmp_path / "users").exists()


def test_a_users_file_in_another_encoding_is_left_as_it_is(tmp_path: Path) -> None:
    before = b"# caf\xe9\n"
    ran = passwd(tmp_path, b"correct horse battery\n", before)
    assert ran.returncode == 1
    assert b"users: this is not UTF-8 text." in ran.stderr
    assert (tmp_path / "users").read_bytes() == before


@pytest.mark.parametrize("before", [b"", b"bob:$argon2id$x\n"])
def test_a_password_that_is_not_there_is_not_removed(tmp_path: Path, before: bytes) -> None:
    ran = passwd(tmp_path, b"", before, "--remove")
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert ran.stderr.endswith(b"users: there is no user 'alice' with a password.\n")
    assert [path.read_bytes() for path in tmp_path.glob("users")] == [before] * bool(before)
