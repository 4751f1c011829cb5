"""Checks for ``check-config``: what would keep ``sshgate serve`` from starting although the configuration is valid.

Suitable for an init container or before a restart: the checks create nothing and leave nothing open.
"""

from __future__ import annotations

import errno
import importlib
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from sshgate.access.tls import load_certificate
from sshgate.config.model import Address, Config, Tls, Traces
from sshgate.errors import ConfigError
from sshgate.telemetry.tracing import checked


def refusals(config: Config) -> list[str]:
    """Return one sentence for each reason why a gateway with this configuration cannot start on this machine."""
    found = list(_host_keys(config.ssh.host_keys))
    listeners = {"ssh.listen": config.ssh.listen, "telemetry.listen": config.telemetry.listen}
    if config.web is not None:
        listeners["web.listen"] = config.web.listen
    for name, wanted in listeners.items():
        if wanted is not None:
            found += _address(name, wanted)
    if config.web is not None:
        if config.web.tls is not None:
            found += _tls(config.web.tls)
        found += _secret(config.web.secret)
    if config.models.prices is not None:
        found += _prices(config.models.prices)
    if config.telemetry.audit is not None:
        found += _audit(config.telemetry.audit)
    if config.telemetry.traces is not None:
        found += _traces(config.telemetry.traces)
    return found


def _host_keys(directory: Path) -> Iterator[str]:
    if not any(directory.glob("ssh_host_*_key")):
        if place := _unwritable(directory):
            yield f"ssh.host_keys: {directory} holds no host key, and none can be created: {place} is not writable."
        return
    from sshgate.ssh import hostkeys  # takes half a second, needed only if there are keys

    try:
        hostkeys.load(directory, make=False)
    except ConfigError as error:
        yield from (f"ssh.host_keys: {mistake}" for mistake in error.mistakes)


def _unwritable(wanted: Path) -> Path | None:
    """Return the existing file or directory that keeps a directory from being created or filled; ``None``: it can."""
    place = next(place for place in (wanted, *wanted.parents) if place.exists())
    return None if os.access(place, os.W_OK | os.X_OK) else place


def _tls(files: Tls) -> Iterator[str]:
    try:
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files.cert, files.key)
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror
        yield f"web.tls: {files.cert}, {files.key}: cannot be used for TLS: {reason}."


def _secret(file: Path) -> Iterator[str]:
    if not file.exists():
        if place := _unwritable(file.parent):
            yield f"web.secret: there is no {file}, and it cannot be created: {place} is not writable."
        return
    try:
        importlib.import_module("webshim.credentials").load(file)
    except ConfigError as error:
        yield from (f"web.secret: {mistake}" for mistake in error.mistakes)


def _prices(file: Path) -> Iterator[str]:
    from sshgate.broker.prices import Prices

    try:
        Prices(file)
    except ConfigError as error:
        yield from (f"models.prices: {mistake}" for mistake in error.mistakes)


def _address(name: str, wanted: Address) -> Iterator[str]:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            wanted.host, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        yield f"{name}: the host name {wanted.host!r} cannot be resolved: {error.strerror}."
        return
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(place)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                yield f"{name}: {wanted.host} is not an address of this machine."
            elif error.errno == errno.EACCES:
                yield f"{name}: port {wanted.port} needs CAP_NET_BIND_SERVICE; choose a port above 1023."
            elif error.errno != errno.EADDRINUSE:  # a running gateway may have its configuration checked
                yield f"{name}: cannot listen on {wanted}: {error.strerror}."


def _audit(file: Path) -> Iterator[str]:
    if file.is_dir():
        yield f"telemetry.audit: {file} is a directory; name a file in it."
    elif file.exists() and not os.access(file, os.W_OK):
        yield f"telemetry.audit: {file} cannot be written to."
    elif not file.exists() and not (file.parent.is_dir() and os.access(file.parent, os.W_OK | os.X_OK)):
        yield f"telemetry.audit: {file} cannot be created: create its directory, and let the gateway write there."


def _traces(settings: Traces) -> Iterator[str]:
    try:
        checked(settings)
    except ConfigError as error:
        yield from error.mistakes
