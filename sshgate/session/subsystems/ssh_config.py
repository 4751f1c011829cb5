"""Lines for ~/.ssh/config with which editors and people reach the same sandbox every time. Pure functions."""

from __future__ import annotations

from dataclasses import replace

from sshgate.access.identity import LoginName
from sshgate.session.subsystems.registry import SubsystemHandlers, SubsystemRequest

ALIAS = "sandbox"
# The sandbox's name if the login name has none. Editors need a named one: they return to their server in it.
USUAL_NAME = "work"
REMARK = f"""\
# ssh {ALIAS}: the same sandbox every time, for shells, files and remote editors. Goes into ~/.ssh/config.
# The address is the one at which the gateway was reached: behind a balancer, write the name you use.
"""


def block(login: LoginName, host: str, port: int, *more: str) -> str:
    """Return a ``Host`` block; ``more`` are additional lines, such as one for the key's file."""
    named = replace(login, name=login.name or USUAL_NAME)
    lines = (f"HostName {host}", f"Port {port}", f"User {named}", *more, "ServerAliveInterval 30")
    return f"Host {ALIAS}\n" + "".join(f"  {line}\n" for line in lines)


def add_to(verbs: SubsystemHandlers, node: str | None) -> None:
    """Register the subsystem `config`, which prints the block for the user who has logged in.

    Args:
        node: The address for the block when the gateway runs in a pod; ``None``: the address the client connected to.
    """

    async def config(question: SubsystemRequest) -> str:
        who = question.identity
        return REMARK + block(who.login, node or who.server or "HOST", who.server_port or 22)

    verbs.add("config", config, "lines for ~/.ssh/config by which editors find the same sandbox again")
