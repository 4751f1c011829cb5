"""Parses the sources and the destination of ``sshgate cp``. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_POD = r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"
_NAMESPACED = re.compile(rf"({_POD})/({_POD}):(.*)", re.S)
_BRACKETS = re.compile(r"(?:([^@/\[\]]*)@)?\[([^\]]*)\]:(.*)", re.S)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class UsageError(ValueError):
    """A usage error of the command line. The text is one sentence for the user; the exit status is 2."""


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A path on this machine. ``-`` is a file name, not stdin or stdout."""

    path: str


@dataclass(frozen=True, slots=True)
class SshPath:
    """A path reached by ssh. ``login``: ``None`` leaves the login name to ssh's configuration."""

    login: str | None
    host: str
    path: str


@dataclass(frozen=True, slots=True)
class PodPath:
    """A path in a pod, reached through the Kubernetes API. ``namespace``: ``None`` means that of the option."""

    namespace: str | None
    pod: str
    path: str


Location = LocalPath | SshPath | PodPath


def parse_location(text: str, *, host: str | None = None, operator: bool = False) -> Location:
    """Parse one source or destination.

    Args:
        text: The argument as given.
        host: The gateway of ``--host``. What is before the colon is then a login name. Without it, a word with ``=`` or
            ``+`` is a login name at a gateway on this machine, and any other word is a host.
        operator: A Kubernetes option was given: what is before the colon is a pod.

    Raises:
        UsageError: The text is not valid.
    """
    if not text:
        raise UsageError("a source or destination is empty; the current directory is `.`.")
    if text.startswith(("/", "./", "../", "~")) or ":" not in text:
        return LocalPath(text)
    if bracketed := _BRACKETS.fullmatch(text):
        return _ssh_path(text, *bracketed.groups())
    if namespaced := _NAMESPACED.fullmatch(text):
        namespace = None if namespaced[1] == "pod" else namespaced[1]
        return PodPath(namespace, namespaced[2], namespaced[3])
    before, _, path = text.partition(":")
    if "/" in before:
        return LocalPath(text)
    if not before or before.startswith("-"):
        raise UsageError(f"{text!r} names no host before the colon; write ./{text} for a file of that name.")
    if operator:
        if not re.fullmatch(_POD, before):
            raise UsageError(f"{before!r} is not a pod name; write POD:PATH or NAMESPACE/POD:PATH.")
        return PodPath(None, before, path)
    login, at, named = before.rpartition("@")
    if at:
        return _ssh_path(text, login, named, path)
    if host is not None:
        if not host or host.startswith("-"):
            raise UsageError(f"--host {host!r} is not a host name.")
        return SshPath(before, host, path)
    if "=" in before or "+" in before:
        return SshPath(before, "localhost", path)
    return SshPath(None, before, path)


def _ssh_path(text: str, login: str | None, host: str, path: str) -> SshPath:
    if login == "" or not host or host.startswith("-"):
        raise UsageError(f"{text!r} names no host; write USER@HOST:PATH.")
    return SshPath(login, host, path)


def route(sources: list[Location], destination: Location) -> SshPath | PodPath:
    """Return the sandbox's side of a copy. Raises ``UsageError`` unless exactly one side is in one sandbox."""
    far = [source for source in sources if not isinstance(source, LocalPath)]
    if isinstance(destination, LocalPath):
        if not far:
            raise UsageError(
                "both sides are on this machine: write USER=NAME:PATH or POD:PATH for a sandbox, or use cp."
            )
        if len(far) != len(sources):
            raise UsageError("some sources are on this machine and some in a sandbox: copy them separately.")
        if len({_sandbox(place) for place in far}) > 1:
            raise UsageError("the sources are in different sandboxes: copy them separately.")
        return far[0]
    if far:
        raise UsageError("both sides are in sandboxes: copy to this machine first, then to the other sandbox.")
    return destination


def _sandbox(far: SshPath | PodPath) -> tuple[str | None, str]:
    return (far.login, far.host) if isinstance(far, SshPath) else (far.namespace, far.pod)


def size(text: str) -> int:
    """Parse a number of bytes such as ``500M`` or ``20GiB``, by powers of 1024. Raises ``UsageError``."""
    found = re.fullmatch(r"(\d{1,15})\s*([KMGT]?)(?:i?B)?", text.strip(), re.I)
    if not found or int(found[1]) == 0:
        raise UsageError(f"{text!r} is not a size; write for example 500M or 20G.")
    return int(found[1]) * _UNITS[found[2].upper()]
