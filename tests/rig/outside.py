"""A machine outside of the cluster: a network namespace that pods reach through their node."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# Of the ranges for documentation (RFC 5737): nobody on the internet has them, and policies take them for public.
GATEWAY, INTERNET = "203.0.113.1", "203.0.113.7"
LINK = "sshgate-outside"
# Greets everybody who comes, on each of the ports.
GREETER = """
import selectors, socket, sys
loop = selectors.DefaultSelector()
for port in sys.argv[1:]:
    loop.register(socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True), 1)
print("up", flush=True)
while True:
    for key, _ in loop.select():
        connection, _ = key.fileobj.accept()
        connection.sendall(b"hello")
        connection.close()
"""


@contextmanager
def outside(ports: Sequence[int], more: Sequence[str]) -> Iterator[None]:
    """It greets at ``INTERNET`` and at the addresses ``more`` until the block ends. Needs root."""
    words = ["unshare", "--net", "python3", "-c", GREETER, *map(str, ports)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as greeter:
        assert greeter.stdout is not None
        try:
            assert greeter.stdout.readline().startswith(b"up")
            inside = ["nsenter", f"--net=/proc/{greeter.pid}/ns/net"]
            _ip("link", "add", LINK, "type", "veth", "peer", "name", "out", "netns", str(greeter.pid))
            _ip("address", "add", f"{GATEWAY}/24", "dev", LINK)
            _ip("link", "set", LINK, "up")
            _ip("address", "add", f"{INTERNET}/24", "dev", "out", before=inside)
            _ip("link", "set", "out", "up", before=inside)
            for address in more:
                _ip("address", "add", f"{address}/32", "dev", "out", before=inside)
                _ip("route", "add", address, "via", INTERNET, "dev", LINK)
            yield
        finally:
            greeter.kill()  # the link and the routes go with its namespace


def _ip(*words: str, before: Sequence[str] = ()) -> None:
    subprocess.run([*before, "ip", *words], check=True, timeout=20)
