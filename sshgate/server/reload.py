"""Reloads the configuration of a running gateway, at SIGHUP and when its file or the host keys change.

A file with mistakes changes nothing; an event reports them. Settings that require a restart keep their values, and an
event names them. New settings apply to new connections and new sandboxes; existing ones keep theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sshgate.config.load import load
from sshgate.config.model import Config
from sshgate.errors import ConfigError, GateError
from sshgate.stream.tasks import within
from sshgate.telemetry.codes import Code
from sshgate.telemetry.events import Events

# Seconds between checks of the files. The kubelet takes up to a minute to update a mounted ConfigMap anyway.
POLL_SECONDS = 2.0

# Reloadable settings: whole sections, or single settings of a section. All others require a restart.
LIVE = frozenset(
    {
        "profiles", "limits", "models", "git",
        "ssh.login_grace", "ssh.keepalive", "ssh.keepalive_count", "ssh.banner", "ssh.greeting", "ssh.rekey_bytes",
        "ssh.rekey_seconds", "ssh.older_key_exchanges", "ssh.channels_per_connection", "ssh.drain", "ssh.fast_path",
        "access.accept_env", "access.accept_env_forced",
    }
)  # fmt: skip

Apply = Callable[[Config], Awaitable[None]]


class ConfigReloader:
    """Watches a configuration file and the host keys, and applies each usable change.

    Emits ``CONFIG_REREAD`` or ``CONFIG_REFUSED`` for each change.

    Args:
        config: The configuration in force, as read from ``file``.
        apply: Called with each new configuration, in which settings that require a restart have their old values. If it
            raises ``GateError`` (such as for unreadable host keys), the old configuration stays in force.
        interval: Seconds between checks for changes.
        given: Settings that stay as they are whatever the file has.
        read: Reads the file.
    """

    def __init__(
        self,
        file: Path,
        config: Config,
        apply: Apply,
        events: Events,
        interval: float = POLL_SECONDS,
        given: Mapping[str, Any] = MappingProxyType({}),
        read: Callable[[Path], Config] = load,
    ) -> None:
        self._file = file
        self._config = config
        self._apply = apply
        self._events = events
        self._interval = interval
        self._given = given
        self._read = read
        self._requested = asyncio.Event()
        self._last_stamp = self._stamp()

    def request_reload(self) -> None:
        """Read the file again soon, whether or not it has changed. Returns at once."""
        self._requested.set()

    async def run(self) -> None:
        """Watch until cancelled. A failed reload never ends it."""
        while True:
            await within(self._interval, self._requested.wait())
            try:
                await self._check()
            except Exception as error:
                # An unexpected error is reported too, and must not prevent later reloads.
                reason = "an internal error; the settings in force stay, and the next change is read again"
                self._events.emit(Code.CONFIG_REFUSED, reason=reason, error=error)

    async def _check(self) -> None:
        stamp = await asyncio.to_thread(self._stamp)
        if self._requested.is_set() or stamp != self._last_stamp:
            self._requested.clear()
            self._last_stamp = stamp
            await self._reload()

    async def _reload(self) -> None:
        try:
            wanted = replace(await asyncio.to_thread(self._read, self._file), **self._given)
            config, live, later = split_reloadable(self._config, wanted)
            await self._apply(config)
        except ConfigError as error:
            self._events.emit(Code.CONFIG_REFUSED, reason=" ".join(error.mistakes))
            return
        except GateError as error:
            self._events.emit(Code.CONFIG_REFUSED, reason=str(error))
            return
        self._config = config
        self._events.emit(
            Code.CONFIG_REREAD,
            changed=", ".join(live) or None,
            later=f"{', '.join(later)}: in force after a restart" if later else None,
        )

    def _stamp(self) -> tuple[object, ...]:
        """Return a value that differs if a file may have changed; links are followed, as for a mounted ConfigMap."""
        keys = self._config.ssh.host_keys
        with contextlib.suppress(OSError):
            return (_stamp_of(self._file), *(_stamp_of(path) for path in sorted(keys.glob("ssh_host_*_key"))))
        return (_stamp_of(self._file),)


def split_reloadable(old: Config, new: Config) -> tuple[Config, list[str], list[str]]:
    """Split the changes between two configurations into those that can be applied now and those that need a restart.

    Returns:
        ``old`` with the reloadable changes of ``new``, the names of these changes, and the names of the other ones.
    """
    live: list[str] = []
    later: list[str] = []
    kept: dict[str, Any] = {}
    for name, before, after in _changed(old, new):
        if name in LIVE or before is None or after is None or not hasattr(before, "__dataclass_fields__"):
            (live if name in LIVE else later).append(name)
            kept[name] = after if name in LIVE else before
            continue
        values = {}
        for inner, was, will in _changed(before, after):
            path = f"{name}.{inner}"
            (live if path in LIVE else later).append(path)
            values[inner] = will if path in LIVE else was
        kept[name] = replace(before, **values)
    return replace(old, **kept), live, later


def _changed(old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    for known in fields(old):
        before, after = getattr(old, known.name), getattr(new, known.name)
        if before != after:
            yield known.name, before, after


def _stamp_of(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
