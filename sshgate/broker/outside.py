"""Connections from the broker to the internet: a name is looked up once, and the address that was judged is used."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network

from sshgate.broker.addresses import Address, public, within
from sshgate.broker.sockets import LIMIT, SocketStream

LOOKUP_SECONDS = 5.0
CONNECT_SECONDS = 5.0
# Addresses of one name that are tried.
MOST_ADDRESSES = 4
# Lookups at a time: the system's resolver blocks a thread for each.
LOOKUPS = 16

Resolve = Callable[[str], Awaitable[Sequence[Address]]]
"""Looks up all addresses of a name. Raises ``OSError`` if there are none."""


class Unreachable(Exception):
    """There is no connection. ``refused``: by us, because of an address; otherwise the network's fault."""

    def __init__(self, reason: str, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class SystemResolver:
    """The machine's own resolver, in threads of its own: a slow name server must not hold up files and passwords."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="resolve")

    def __repr__(self) -> str:
        return "<SystemResolver>"

    async def __call__(self, name: str) -> Sequence[Address]:
        """See ``Resolve``. Cancelling leaves a thread until the system's own time limit."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, name)
        return [ip_address(address.partition("%")[0]) for address in found]

    def close(self) -> None:
        """Start no further lookups."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(name: str) -> list[str]:
    try:
        # The root's dot keeps the search list of resolv.conf out: `example.org.corp.example` is another name.
        found = socket.getaddrinfo(f"{name}.", None, type=socket.SOCK_STREAM)
    except OSError:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def connect(name: str, port: int, resolve: Resolve, private: Iterable[str] = ()) -> SocketStream:
    """Connect to a name. It is looked up once; none of its addresses may be private or special.

    Args:
        name: In the form of ``config.host_names.canonical``.
        private: Networks whose addresses are allowed although they are not public.

    Raises:
        Unreachable: It has no addresses, a forbidden one, or none that answers.
    """
    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            addresses = list(await resolve(name))
    except (OSError, UnicodeError, TimeoutError):
        addresses = []
    if not addresses:
        raise Unreachable(f"{name} has no address")
    networks = [ip_network(one) for one in private]
    # Of all, not of those that are tried: a name that stands for a private address as well is no name to trust.
    for address in addresses:
        if not public(address) and not within(address, networks):
            raise Unreachable(f"{name} stands for {address}, which is no public address", refused=True)
    for address in addresses[:MOST_ADDRESSES]:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                # A numeric address: nothing is looked up again.
                reader, writer = await asyncio.open_connection(str(address), port, limit=LIMIT)
        except (OSError, TimeoutError):
            continue
        # A connection may be quiet for hours; a server that is gone without a word is found all the same.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return SocketStream(reader, writer)
    raise Unreachable(f"{name} does not answer on port {port}")
