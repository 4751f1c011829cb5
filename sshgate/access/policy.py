"""The policy: turns an identity and a request into a grant or a denial. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from sshgate.access.identity import Identity
from sshgate.config.model import Profile
from sshgate.config.values import is_given, is_label, matches
from sshgate.errors import Denied
from sshgate.sandbox.launcher import USUAL_SFTP_SERVER
from sshgate.stream.interfaces import Exec, Request, Shell, Subsystem

# Variables that select the sandbox. They are not passed to programs.
_ABOUT_THE_SANDBOX = ("SSHGATE_PROFILE", "SSHGATE_NAME")


@dataclass(frozen=True, slots=True)
class Grant:
    """The policy's answer: which profile, in which scope, and the request as it will be carried out."""

    profile: Profile
    scope: Literal["channel", "connection", "named"]
    request: Request
    name: str | None = None
    environment: Mapping[str, bytes] = field(default_factory=dict)
    """Variables set by the key or the gateway. They override the client's."""
    receipt: bool = False
    """Print the timings of this session on stderr at its end (SSHGATE_RECEIPT)."""
    chosen: bool = False
    """The user or the key asked for this profile, so it is not a default."""


def grant(
    identity: Identity,
    request: Request,
    profiles: Mapping[str, Profile],
    usual: Callable[[str], str | None] = lambda name: None,
) -> Grant:
    """Decide on one request.

    Profile and sandbox name come from SSHGATE_PROFILE and SSHGATE_NAME in the key's ``environment=`` options, else
    from the login name, else from the client's variables of the same names (ignored under a forced command). These
    variables and SSHGATE_RECEIPT are removed from the environment.

    Args:
        usual: returns the profile of the user's existing sandbox with this name, or ``None``. It is asked when no
            profile was chosen; without an answer the profile is ``default``.

    Raises:
        Denied: the profile is unknown or not allowed, the name is invalid, the login name contradicts the key, or
            the key allows another kind of request only.
    """
    environment = {key: text for key, text in request.environment.items() if key not in _ABOUT_THE_SANDBOX}
    receipt = environment.pop("SSHGATE_RECEIPT", b"") not in (b"", b"0")
    name = sandbox_name(identity, request)
    asked_for = _chosen(identity, request, "SSHGATE_PROFILE", identity.login.profile)
    known = usual(name) if name is not None and asked_for is None else None
    profile = _profile(identity, asked_for or (known if known in profiles else None) or "default", profiles)
    if is_given(name):
        profile = replace(profile, home=None)  # nobody would come back to it
    ours = {**_original_command(identity, request), **identity.restrictions.environment}
    asked = replace(request, environment={key: text for key, text in environment.items() if key not in ours})
    return Grant(
        profile=profile,
        scope="named" if name else profile.scope,
        request=_restricted(identity, asked),
        name=name,
        environment=ours,
        receipt=receipt,
        chosen=asked_for is not None,
    )


def sandbox_name(identity: Identity, request: Request) -> str | None:
    """Return the requested sandbox name: from the key, else the login name, else the client's SSHGATE_NAME.

    ``None``: no name was requested. Raises ``Denied`` for an invalid name, or one that the key does not allow.
    """
    name = _chosen(identity, request, "SSHGATE_NAME", identity.login.name)
    if name is not None and not is_label(name):
        raise Denied("SSHGATE_NAME is not a sandbox name: use 1-40 of a-z, 0-9 and inner '-'.")
    return name


def _chosen(identity: Identity, request: Request, variable: str, by_login: str | None) -> str | None:
    """Choose a profile or sandbox: the key's variable wins, then the login name, then the client's variable.

    With a forced command the client's variable is ignored. The login name still counts: it corresponds to sshd's
    account name, which also decides where a forced command runs. A client's variables have no such effect in sshd.
    """
    limits = identity.restrictions
    fixed = limits.environment.get(variable, b"").decode("ascii", "replace")
    if fixed:
        if by_login not in (None, fixed):
            raise Denied(f"your key is for {fixed!r} only; log in without {by_login!r}.")
        return fixed
    wanted = request.environment.get(variable, b"") if limits.command is None else b""
    return by_login or wanted.decode("ascii", "replace") or None


def _profile(identity: Identity, name: str, profiles: Mapping[str, Profile]) -> Profile:
    profile = profiles.get(name)
    if profile is None or not matches(identity.user, profile.allow):
        allowed = sorted(known.name for known in profiles.values() if matches(identity.user, known.allow))
        choice = f"yours are: {', '.join(allowed)}" if allowed else "you have none; ask your operator"
        raise Denied(f"there is no profile {name!r} for you, {choice}.")
    return profile


def _restricted(identity: Identity, request: Request) -> Request:
    limits = identity.restrictions
    if request.terminal is not None and not limits.terminal:
        request = replace(request, terminal=None)
    if limits.command is not None:
        request = replace(request, kind=_forced(limits.command, request))
    return request


def _forced(command: bytes, request: Request) -> Exec | Subsystem:
    """Return the request that a forced command stands for. ``internal-sftp`` is sshd's built-in file server.

    Raises ``Denied`` when it is forced and the client asks for anything but sftp.
    """
    name, *options = command.split() or [b""]
    if name != b"internal-sftp":
        return Exec(command)
    if not isinstance(request.kind, Subsystem) or request.kind.name != "sftp":
        raise Denied("your key is for sftp only; use sftp, or scp as of OpenSSH 9.")
    return Subsystem("sftp", tuple(options))


def _original_command(identity: Identity, request: Request) -> dict[str, bytes]:
    if identity.restrictions.command is None:
        return {}
    if isinstance(request.kind, Exec):
        return {"SSH_ORIGINAL_COMMAND": request.kind.command}
    if isinstance(request.kind, Shell):
        return {}
    # As in sshd: the program behind the subsystem, so that `exec $SSH_ORIGINAL_COMMAND` starts it.
    name = request.kind.name
    return {"SSH_ORIGINAL_COMMAND": USUAL_SFTP_SERVER if name == "sftp" else name.encode("utf-8", "surrogateescape")}
