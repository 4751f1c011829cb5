"""`sshgate try`, from the command to the pasted line to Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.waiting import until

pytestmark = [pytest.mark.local, pytest.mark.usefixtures("local")]

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


class Trial:
    """A running trial and what it has said."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._output = place / "said"
        self._complaints = place / "complaints"
        with self._output.open("wb") as out, self._complaints.open("wb") as err:
            self.running = subprocess.Popen(
                [sys.executable, "-m", "sshgate", "try", "--port", "0"],
                cwd=place, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def complaints(self) -> str:
        return self._complaints.read_text()

    def ready(self) -> bool:
        assert self.running.poll() is None, self.complaints
        return "Ctrl-C" in self.output

    def lines(self, command: str) -> list[str]:
        """The lines to paste that begin with this command."""
        return [line.strip() for line in self.output.splitlines() if line.startswith(f"  {command} ")]

    def paste(self, line: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        # BatchMode: a question, as about an unknown host, is a failure.
        line = re.sub(r"^(ssh|sftp) ", r"\1 -F none -o BatchMode=yes ", line)
        return subprocess.run(
            ["sh", "-c", line], cwd=self.place, input=stdin, capture_output=True, timeout=PATIENCE, check=False
        )


@contextlib.contextmanager
def trial(place: Path) -> Iterator[Trial]:
    started = Trial(place)
    try:
        until(started.ready, PATIENCE, "the invitation")
        yield started
    finally:
        if started.running.poll() is None:
            started.running.kill()
        started.running.wait()


def _opens(link: str) -> int:
    """The status of a browser's login by this link."""
    url, _, ticket = link.partition("/#login=")
    headers = {"Content-Type": "application/json", "Origin": url}
    request = urllib.request.Request(f"{url}/api/login", json.dumps({"link": ticket}).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_the_pasted_lines_work_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    with trial(tmp_path) as tried:
        plain, web_line, exec_line = tried.lines("ssh")
        link = next(line.strip() for line in tried.output.splitlines() if line.startswith("  http://127.0.0.1:"))
        another = tried.paste(web_line).stdout.decode().strip()
        assert [_opens(each) for each in (link, another, link)] == [200, 200, 401]
        shell = tried.paste(plain, b"echo in a shell; exit 3\n")
        assert (shell.returncode, shell.stdout) == (3, b"in a shell\n"), shell.stderr
        command = tried.paste(exec_line)
        assert (command.returncode, command.stdout.split()[0]) == (7, b"Linux"), command.stderr
        (sftp,) = tried.lines("sftp")
        files = tried.paste(sftp, b"put said upload\nls -l upload\n")
        assert files.returncode == 0
        assert b"upload" in files.stdout
        fresh = tried.paste(plain.replace("dev@", "dev+fresh@") + " true")
        assert fresh.returncode == 0, fresh.stderr
        os.killpg(tried.running.pid, signal.SIGINT)
        assert tried.running.wait(PATIENCE) == 0
        assert "Traceback" not in tried.complaints


def test_a_second_start_on_another_port_needs_no_new_trust(tmp_path: Path) -> None:
    for _ in range(2):
        with trial(tmp_path) as tried:
            line = tried.lines("ssh")[0] + " exit 5"
            assert tried.paste(line).returncode == 5
            tried.running.send_signal(signal.SIGINT)
            assert tried.running.wait(PATIENCE) == 0


def test_ctrl_c_with_a_session_open_ends_both(tmp_path: Path) -> None:
    with trial(tmp_path) as tried:
        line = tried.lines("ssh")[0].replace("ssh ", "exec ssh -F none -o BatchMode=yes ", 1)
        session = subprocess.Popen(
            ["sh", "-c", f"{line} 'echo ready; sleep 1000'"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with session:
            assert session.stdout is not None
            assert session.stdout.readline() == b"ready\n"
            tried.running.send_signal(signal.SIGINT)
            assert session.wait(PATIENCE) == 255
            assert tried.running.wait(PATIENCE) == 0
        assert "Traceback" not in tried.complaints


def test_a_key_of_its_environment_is_offered_and_gets_into_no_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-api03-canary-of-try")
    with trial(tmp_path) as tried:
        assert "reach anthropic through" in tried.output
        line = tried.lines("ssh")[0]
        found = tried.paste(f'{line} \'env; tr "\\0" "\\n" </proc/1/environ; cat /proc/*/environ\'')
        assert b"ANTHROPIC_BASE_URL=http://127.0.0.1:4711/anthropic" in found.stdout, found.stderr
        assert b"canary-of-try" not in found.stdout
        asked = "curl -s -o /dev/null -w %{http_code} -I http://127.0.0.1:4711/anthropic"
        assert tried.paste(f"{line} '{asked} || python3 -c \"print(200)\"'").stdout.strip()[:3] == b"200"
        assert "canary-of-try" not in tried.output + tried.complaints
