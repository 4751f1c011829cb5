"""The exec wire: query, frames and status messages as Kubernetes sends them."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl

import pytest

from sshgate.providers.kubernetes.exec import remotecommand
from sshgate.stream.interfaces import Exited, Lost
from sshgate.stream.terminal import TerminalSize


def failure(message: str, reason: str = "InternalError", causes: list[dict[str, str]] | None = None) -> bytes:
    details = {"causes": causes} if causes is not None else {}
    return json.dumps({"status": "Failure", "message": message, "reason": reason, "details": details}).encode()


def test_query_keeps_every_word_of_the_command() -> None:
    words = ["/bin/sh", "-c", "a b&c=d\n%41 'x'", ""]
    query = parse_qsl(remotecommand.exec_query("shell", words, terminal=False), keep_blank_values=True)
    assert [value for key, value in query if key == "command"] == words
    assert ("container", "shell") in query


def test_pipes_ask_for_stderr_and_a_terminal_does_not() -> None:
    pipes = dict(parse_qsl(remotecommand.exec_query("shell", ["x"], terminal=False)))
    terminal = dict(parse_qsl(remotecommand.exec_query("shell", ["x"], terminal=True)))
    assert (pipes.get("stderr"), pipes.get("tty")) == ("true", None)
    assert (terminal.get("stderr"), terminal.get("tty")) == (None, "true")


def test_resize_is_json_on_channel_four() -> None:
    frame = remotecommand.resize_frame(TerminalSize(65_535, 1))
    assert frame[0] == 4
    assert json.loads(frame[1:]) == {"Width": 65_535, "Height": 1}


def test_success_is_status_zero() -> None:
    assert remotecommand.outcome(b'{"metadata":{},"status":"Success"}') == Exited(0)


@pytest.mark.parametrize("status", [1, 3, 127, 137, 255])
def test_exit_status_comes_from_the_exit_code_cause(status: int) -> None:
    causes = [{"reason": "Other", "message": "x"}, {"reason": "ExitCode", "message": str(status)}]
    assert remotecommand.outcome(failure("x", "NonZeroExitCode", causes)) == Exited(status)


@pytest.mark.parametrize(
    "message",
    [
        'exec failed: unable to start container process: exec: "nope": executable file not found in $PATH: unknown',
        'unable to start container process: exec: "/nope": stat /nope: no such file or directory: unknown',
        "executable file `nope` not found in $PATH: No such file or directory: OCI runtime attempted to invoke ...",
        'executing command "/nope -c x" in sandbox: failed to load /nope: no such file or directory: unknown',
    ],
)
def test_a_missing_program_is_lost_with_127(message: str) -> None:
    outcome = remotecommand.outcome(failure(message))
    assert isinstance(outcome, Lost)
    assert outcome.status == 127


def test_a_program_that_may_not_be_executed_is_lost_with_126() -> None:
    message = 'unable to start container process: exec: "/etc/passwd": permission denied: unknown'
    outcome = remotecommand.outcome(failure(message))
    assert isinstance(outcome, Lost)
    assert outcome.status == 126


def test_a_race_inside_the_runtime_is_not_a_missing_program() -> None:
    """runc opens files of the container's first process, which may be gone already."""
    outcome = remotecommand.outcome(failure("exec failed: open /proc/77/ns/ipc: no such file or directory: unknown"))
    assert isinstance(outcome, Lost)
    assert outcome.status == 255


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"Success"',
        b"{}",
        b'{"status":"Failure","reason":"NonZeroExitCode"}',
        b'{"status":"Failure","reason":"NonZeroExitCode","details":null}',
        b'{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":null}}',
        b'{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[null,{"reason":"ExitCode"}]}}',
        b'{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"x"}]}}',
        b"[" * 100_000,
    ],
)
def test_anything_else_is_lost_with_255_never_success(payload: bytes) -> None:
    outcome = remotecommand.outcome(payload)
    assert isinstance(outcome, Lost)
    assert outcome.status == 255


def test_the_runtimes_words_do_not_reach_the_user() -> None:
    outcome = remotecommand.outcome(failure("token=SECRET is in this message"))
    assert isinstance(outcome, Lost)
    assert "SECRET" not in outcome.reason
