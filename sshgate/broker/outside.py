"""Connections from the broker to the internet: a name is looked up once, and the address that was judged is used."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from itertools import zip_longest
from pathlib import Path

from sshgate.broker.addresses import Address, public, within
from sshgate.broker.sockets import LIMIT, SocketStream
from sshgate.sandbox.shares import Shares
from sshgate.stream.tasks import TaskSet

LOOKUP_SECONDS = 5.0
CONNECT_SECONDS = 5.0
# Addresses of one name that are tried.
MOST_ADDRESSES = 4
# The machine's own names: `localhost`, and those that an operator has added.
HOSTS = Path("/etc/hosts")
LONGEST_HOSTS = 1 << 20
# Lookups at a time, and of one user: the system's resolver blocks a thread for each.
LOOKUPS = 16
LOOKUPS_OF_ONE = 8

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

    async def __call__(self, name: str) -> Sequence[Address]:
        """See ``Resolve``. Cancelling leaves a thread until the system's own time limit."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, name)
        return [ip_address(address.partition("%")[0]) for address in found]

    def close(self) -> None:
        """Start no further lookups."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(name: str) -> list[str]:
    own = _in_hosts(name)
    if own:
        return own
    # The root's dot keeps the search list of resolv.conf out: `example.org.corp.example` is another name. With it the
    # system does not find names of its file of hosts.
    found = socket.getaddrinfo(f"{name}.", None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _in_hosts(name: str) -> list[str]:
    try:
        with HOSTS.open() as file:
            lines = file.read(LONGEST_HOSTS).splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in lines:
        address, *names = line.partition("#")[0].lower().split() or [""]
        if name in names:
            with contextlib.suppress(ValueError):
                found.append(str(ip_address(address.partition("%")[0])))
    return found


class Lookups:
    """Lookups of names for all users, of whom none can keep the others from theirs by names that nobody answers."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._places = Shares(LOOKUPS, LOOKUPS_OF_ONE)
        self._open: dict[str, asyncio.Task[Sequence[Address]]] = {}
        self._tasks = TaskSet()

    def __repr__(self) -> str:
        return f"<Lookups of {len(self._open)} names by {self._resolve!r}>"

    async def of(self, name: str, user: str) -> Sequence[Address]:
        """Return the addresses of a name; none if there are none, or no answer comes within ``LOOKUP_SECONDS``."""
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                # Only what has a place is shared: others do not wait with a user whose names nobody answers.
                if name not in self._open:
                    await self._begin(name, user)
                return await asyncio.shield(self._open[name])
        except TimeoutError:
            return ()

    async def _begin(self, name: str, user: str) -> None:
        async with contextlib.AsyncExitStack() as place:
            await place.enter_async_context(self._places.hold(user))
            if name not in self._open:
                self._open[name] = self._tasks.start(self._ask(name, place.pop_all()))

    async def _ask(self, name: str, place: contextlib.AsyncExitStack) -> Sequence[Address]:
        # Its place is taken until the resolver has answered, however long nobody waits for that any more.
        async with place:
            try:
                return await self._resolve(name)
            except (OSError, UnicodeError):
                return ()
            finally:
                del self._open[name]


def _by_turns(addresses: Sequence[Address]) -> list[Address]:
    """The two families by turns: where one does not work, four addresses of it would be all that is tried."""
    first = [one for one in addresses if one.version == addresses[0].version]
    other = [one for one in addresses if one.version != addresses[0].version]
    return [one for pair in zip_longest(first, other) for one in pair if one is not None]


async def connect(name: str, port: int, user: str, lookups: Lookups, private: Iterable[str] = ()) -> SocketStream:
    """Connect to a name. It is looked up once; none of its addresses may be private or special.

    Args:
        name: In the form of ``config.host_names.canonical``.
        user: For whom.
        private: Networks whose addresses are allowed although they are not public.

    Raises:
        Unreachable: It has no addresses, a forbidden one, or none that answers.
    """
    addresses = await lookups.of(name, user)
    if not addresses:
        raise Unreachable(f"{name} has no address")
    networks = [ip_network(one) for one in private]
    # Of all, not of those that are tried: a name that stands for a private address as well is no name to trust.
    for address in addresses:
        if not public(address) and not within(address, networks):
            raise Unreachable(f"{name} stands for {address}, which is no public address", refused=True)
    for address in _by_turns(addresses)[:MOST_ADDRESSES]:
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
