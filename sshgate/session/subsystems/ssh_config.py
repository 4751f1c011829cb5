"""The block for ~/.ssh/config with which editors, and people, find the same sandbox at every connection. Pure."""

from __future__ import annotations

from dataclasses import replace

from sshgate.access.identity import LoginName
from sshgate.session.subsystems.registry import SubsystemHandlers, SubsystemRequest

ALIAS = "sandbox"
# What a login name without a name of a sandbox gets here: an editor comes back for its server.
USUAL_NAME = "work"
REMARK = f"""\
# ssh {ALIAS}: the same sandbox every time, for shells, files and remote editors. Goes into ~/.ssh/config.
# The address is the one at which the gateway was reached: behind a balancer, write the name you use.
"""


def block(login: LoginName, host: str, port: int, *more: str) -> str:
    """The lines of a ``Host``; ``more`` are further ones, such as the key's file."""
    named = replace(login, name=login.name or USUAL_NAME)
    lines = (f"HostName {host}", f"Port {port}", f"User {named}", *more, "ServerAliveInterval 30")
    return f"Host {ALIAS}\n" + "".join(f"  {line}\n" for line in lines)


def add_to(verbs: SubsystemHandlers, node: str | None) -> None:
    """Register the verb `config`, which prints the block of whoever asks. ``node``: where it is reached, in a pod."""

    async def config(question: SubsystemRequest) -> str:
        who = question.identity
        return REMARK + block(who.login, node or who.server or "HOST", who.server_port or 22)

    verbs.add("config", config, "lines for ~/.ssh/config by which editors find the same sandbox again")
