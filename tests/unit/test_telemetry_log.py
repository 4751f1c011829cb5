"""What stands in the log: our lines and the libraries' by the same processors, one line each."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# In a process of its own: the loggers are the interpreter's, and pytest has its own hands on them.
PROGRAM = """
import logging, sys, structlog
from sshgate.config.model import Log
from sshgate.telemetry import log
log.configure(Log(format=sys.argv[1]))
structlog.get_logger("x").info("ours", text="a\\x1b[2J")
try:
    raise ValueError("b\\x1b[2J")
except ValueError:
    logging.getLogger("aiohttp.server").exception("theirs %s", "c\\x1b[2J")
from aiohttp.http_exceptions import BadStatusLine
for _ in range(3):
    try:
        raise BadStatusLine("d\\x1b[2J")
    except BadStatusLine:
        logging.getLogger("aiohttp.server").exception("Error handling request")
logging.getLogger("asyncio").warning("slow")
logging.getLogger("asyncssh").warning("chatter")
"""


def lines(form: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, form], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_libraries_write_json_lines_as_we_do() -> None:
    ours, theirs, malformed, slow = map(json.loads, lines("json"))
    assert (ours["event"], ours["level"], ours["text"]) == ("ours", "info", "a\\x1b[2J")
    assert (theirs["event"], theirs["logger"], theirs["level"]) == ("theirs c\\x1b[2J", "aiohttp.server", "error")
    assert "ValueError: b\\x1b[2J" in theirs["exception"]
    # A stranger's mistake, once a minute and without a word of the stranger's.
    assert malformed["event"] == "malformed request: BadStatusLine"
    assert "exception" not in malformed
    assert (slow["event"], slow["logger"], slow["level"]) == ("slow", "asyncio", "warning")
    assert all("timestamp" in line for line in (ours, theirs, slow))


@pytest.mark.parametrize("form", ["human", "json"])
def test_no_text_of_others_moves_the_cursor(form: str) -> None:
    text = "\n".join(lines(form))
    assert "\x1b[2J" not in text
    assert text.replace("\\\\", "\\").count("\\x1b[2J") == 3
