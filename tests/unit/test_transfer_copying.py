"""What a copy imports, and with what."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, ssl
from sshgate.transfer.copying import _no_certificates
before = dict(os.environ)
with _no_certificates():
    import aiohttp.connector
assert dict(os.environ) == before, "the environment has changed"
print(aiohttp.connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509"])
"""


@pytest.mark.parametrize("mine", [{}, {"SSL_CERT_FILE": "/etc/ssl/certs/mine.pem"}], ids=["unset", "set"])
def test_a_copy_reads_no_certificates_that_it_does_not_use(mine: dict[str, str]) -> None:
    """The process's environment is the caller's again afterwards: an external program of a kubeconfig needs it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SSL_")} | mine
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
