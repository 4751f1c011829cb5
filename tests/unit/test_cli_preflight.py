"""What `check-config` finds out besides the file itself: all that would keep `serve` from starting."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sshgate.cli.preflight import refusals
from sshgate.config.model import Address, Config, Ssh, Telemetry, Traces
from sshgate.telemetry.tracing import checked
from tests.rig.ssh import make_key

ANY_PORT = Address("127.0.0.1", 0)


def config(place: Path, listen: Address = ANY_PORT) -> Config:
    return replace(Config(), ssh=Ssh(listen=listen, host_keys=place / "host"))


def test_a_fresh_place_will_do_and_nothing_is_made_there(tmp_path: Path) -> None:
    assert refusals(config(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_host_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    key = tmp_path / "host" / "ssh_host_ed25519_key"
    make_key(key)
    assert refusals(config(tmp_path)) == []
    key.chmod(0o644)
    (sentence,) = refusals(config(tmp_path))
    assert sentence == f"ssh.host_keys: {key}: others can read this private host key; run `chmod 600 {key}`."


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (Address("192.0.2.1", 2222), "ssh.listen: 192.0.2.1 is not an address of this machine."),
        (Address("no-such-host.invalid", 2222), "ssh.listen: the host name 'no-such-host.invalid' cannot be resolved"),
    ],
)
def test_an_address_that_cannot_be_had_is_refused(tmp_path: Path, address: Address, sentence: str) -> None:
    (found,) = refusals(config(tmp_path, listen=address))
    assert found.startswith(sentence)


def test_a_gateway_that_runs_on_the_address_is_no_reason(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert refusals(config(tmp_path, listen=Address(*taken.getsockname()))) == []


def test_an_audit_file_without_a_directory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "none" / "audit.jsonl"
    (found,) = refusals(replace(config(tmp_path), telemetry=Telemetry(audit=file)))
    assert found == f"telemetry.audit: {file} cannot be created: create its directory, and let the gateway write there."


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"authorization: ok\n{SECRET}\n", "line 2 is no header; write `name: value`."),
        (f"bad name: {SECRET}\n", "line 1 is no header; write `name: value`."),
        (f"name: {SECRET}\u00e9\n", "this is not ASCII text."),
    ],
)
def test_headers_for_the_collector_are_checked_and_never_shown(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "headers"
    file.write_text(text, "utf-8")
    wanted = Traces("http://127.0.0.1:4318", file)
    (found,) = refusals(replace(config(tmp_path), telemetry=Telemetry(traces=wanted)))
    assert found == f"telemetry.traces.headers_file: {file}: {sentence}"


def test_headers_are_read_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("Authorization: Bearer a b=\n\nx-scope:  me\n")
    headers = checked(Traces("http://127.0.0.1:4318", file))
    assert headers == {"Authorization": "Bearer a b=", "x-scope": "me"}


@pytest.mark.parametrize("command", [["check-config"], ["serve", "--config"]])
def test_traces_without_opentelemetry_are_refused_in_one_sentence(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "sshgate.yaml"
    file.write_text(
        "ssh: {listen: 127.0.0.1:0}\nsandbox: {provider: local}\ntelemetry: {traces: {endpoint: 'http://127.0.0.1:1'}}\n"
    )
    program = "import sys; sys.modules['opentelemetry'] = None; from sshgate.cli.main import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", program, *command, file], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 2
    sentence = "telemetry.traces: OpenTelemetry is not installed here; run `pip install 'sshgate[traces]'`."
    assert [line for line in ran.stderr.splitlines() if sentence in line] == ran.stderr.splitlines()[-1:]


def test_keys_that_cannot_be_made_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "sshgate.yaml").write_text("ssh: {listen: 127.0.0.1:2222, host_keys: file/host}\n")
    ran = subprocess.run(
        [sys.executable, "-m", "sshgate", "check-config", tmp_path / "sshgate.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr == (
        f"{tmp_path}/sshgate.yaml: ssh.host_keys: {file}/host holds no host key, "
        f"and none can be created: {file} is not writable.\n"
    )


def refused(place: Path, text: str) -> list[str]:
    """What check-config says of a file with this text."""
    (place / "sshgate.yaml").write_text(text)
    ran = subprocess.run(
        [sys.executable, "-m", "sshgate", "check-config", place / "sshgate.yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode in (0, 2)
    return [line.partition("sshgate.yaml: ")[2] for line in ran.stderr.splitlines() if ran.returncode]


@pytest.mark.parametrize(
    ("passphrase", "sentence"), [("hallo", "the key has a passphrase; remove it with `openssl pkey`."), ("", None)]
)
def test_a_certificate_is_tried_and_nobody_asked_for_a_passphrase(
    tmp_path: Path, passphrase: str, sentence: str | None
) -> None:
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.crt"
    secrecy = ["-passout", f"pass:{passphrase}"] if passphrase else ["-nodes"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", key, "-out",
         certificate, "-days", "2", "-subj", "/CN=x", *secrecy],
        check=True, capture_output=True,
    )  # fmt: skip
    found = refused(tmp_path, "web: {listen: '127.0.0.1:0', tls: {cert: tls.crt, key: tls.key}}\n")
    assert found == ([f"web.tls: {certificate}, {key}: cannot be used for TLS: {sentence}"] if sentence else [])


@pytest.mark.parametrize(
    ("content", "text", "sentence"),
    [
        (b"short", "web: {listen: '127.0.0.1:0', secret: file}\n", "web.secret: {file}: the secret is shorter than"),
        (b"ssh: {}\n", "models: {prices: file}\n", "models.prices: {file}: this is no file of prices"),
    ],
)
def test_a_file_that_serve_could_not_use_is_refused(tmp_path: Path, content: bytes, text: str, sentence: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    file.chmod(0o600)
    (found,) = refused(tmp_path, text)
    assert found.startswith(sentence.format(file=file))


def test_the_webs_secret_is_not_made(tmp_path: Path) -> None:
    assert refused(tmp_path, "web: {listen: '127.0.0.1:0'}\n") == []
    assert [path.name for path in tmp_path.iterdir()] == ["sshgate.yaml"]
