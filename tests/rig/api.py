"""Requests to the API server as the cluster's administrator, without a process for each.

Tests look at their pods many times a second. A kubectl for each look keeps a core busy, which the gateways and the
sandboxes then lack; one ``kubectl proxy`` serves all of them, whatever the kubeconfig wants for a login.
"""

from __future__ import annotations

import atexit
import functools
import json
import socket
import subprocess
import tempfile
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.rig.waiting import until

COMMAND = Path(__file__).resolve().parents[1] / "cluster" / "cluster"
LIMIT = 60.0
# It ends with its input, and so with the tests, however they end.
_WHILE_INPUT = '"$0" kubectl proxy --unix-socket="$1" & read -r _; rm -rf "${1%/*}"; kill -KILL 0'


class Refused(Exception):
    """The API server did not do it: the status, or 502 where it did not answer, and its sentence."""


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request; the object in its answer. Raises ``Refused``."""
    connection = _Connection(_proxy())
    try:
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    if response.status >= 300:
        raise Refused(f"{method} {path}: {response.status}: {text}")
    answer: dict[str, Any] = json.loads(text)
    return answer


class _Connection(HTTPConnection):
    def __init__(self, place: Path) -> None:
        super().__init__("localhost", timeout=LIMIT)
        self._place = place

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT)
        self.sock.connect(str(self._place))


@functools.cache
def _proxy() -> Path:
    """The socket of the proxy of this test process."""
    place = Path(tempfile.mkdtemp(prefix="sshgate-proxy-")) / "socket"
    argv = ["bash", "-c", _WHILE_INPUT, str(COMMAND), str(place)]
    proxy = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    atexit.register(proxy.communicate)
    until(lambda: _listens(place), 30, "kubectl proxy")
    return place


def _listens(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(place)) == 0
