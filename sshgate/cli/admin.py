"""The operator's commands on the sandboxes of a namespace: ``sshgate sandboxes`` and ``sshgate reap``."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sshgate.config.model import Config
from sshgate.errors import GateError
from sshgate.lifecycle.requests import Delete, Detach
from sshgate.session.subsystems.sandboxes import sandbox_table

if TYPE_CHECKING:
    from sshgate.providers.kubernetes.operator import Operator


def list_sandboxes(config: Config, as_json: bool) -> int:
    """Print all claimed sandboxes as a table, or as a JSON array. Returns the exit status."""

    async def run(operator: Operator) -> int:
        listed = await operator.sandboxes()
        if as_json:
            click.echo(json.dumps([asdict(one) for one in listed], indent=2))
        else:
            click.echo(sandbox_table(listed, users=True) if listed else "no sandboxes.\n", nl=False)
        return 0

    return _run(config, run)


def end_sandbox(config: Config, which: str, as_json: bool) -> int:
    """End one sandbox.

    Args:
        which: A pod's name, or ``USER=NAME``.

    Returns:
        The exit status; 1 if there is no such sandbox.
    """

    async def run(operator: Operator) -> int:
        ended = await operator.end(which, _operator_name())
        if as_json:
            click.echo(json.dumps({"ended": ended}))
        elif ended is None:
            click.echo(f"sshgate: there is no sandbox {which!r}; `sshgate sandboxes list` lists them.", err=True)
        else:
            click.echo(f"sandbox {ended} has ended.")
        return 0 if ended is not None else 1

    return _run(config, run)


def reap(config: Config, dry_run: bool, as_json: bool) -> int:
    """Delete orphans and expired named sandboxes, and print each action. Takes about 25 seconds.

    Args:
        dry_run: Print the actions without carrying them out.

    Returns:
        The exit status.
    """

    def waiting(seconds: float) -> None:
        click.echo(f"sshgate: waiting {seconds:.0f} s for signs of life from gateways.", err=True)

    async def run(operator: Operator) -> int:
        actions = [_fields(action) for action in await operator.reap(dry_run, waiting)]
        if as_json:
            click.echo(json.dumps(actions, indent=2))
        else:
            click.echo("\n".join(_sentence(action, dry_run) for action in actions) or "nothing to reap.")
        return 0

    return _run(config, run)


def _operator_name() -> str:
    """Return the operator's local user name, for the audit."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # the user of a container need not have a name
        return f"uid {os.getuid()}"


def _fields(action: Delete | Detach) -> dict[str, Any]:
    """Return an action as the object that ``--json`` prints."""
    record = action.record
    return {
        "action": "detach" if isinstance(action, Detach) else "delete",
        "sandbox": record.name,
        "user": record.user,
        "name": record.sandbox,
        "reason": f"its gateway {action.instance} is gone" if isinstance(action, Detach) else action.reason,
        "unless_busy": isinstance(action, Delete) and action.unless_busy,
    }


def _sentence(action: dict[str, Any], dry_run: bool) -> str:
    verb = f"would {action['action']}" if dry_run else f"{action['action'].removesuffix('e')}ed"
    whose = "=".join(filter(None, (action["user"] or "unknown", action["name"])))
    unless = ", unless a program runs in it" if action["unless_busy"] else ""
    return f"{verb} {action['sandbox']} ({whose}){unless}: {action['reason']}"


def _run(config: Config, work: Callable[[Operator], Awaitable[int]]) -> int:
    from sshgate.telemetry import log as logs

    async def connected() -> int:
        from sshgate.providers.kubernetes.operator import operator

        async with operator(config) as opened:
            return await work(opened)

    logs.configure(config.log)
    try:
        return asyncio.run(connected())
    except GateError as error:
        click.echo(f"sshgate: {error}", err=True)
        return 1
    except KeyboardInterrupt:
        return 130
